"""Predictions are collected, gathered in the order of the split, checked for completeness and written atomically."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.predictions import PredictionCollector, all_gather, check_complete
from arclight.metrics.records import ClassPrediction, read_predictions

NAN = float("nan")


def collect(*rows: tuple[int, int, int, float]) -> PredictionCollector:
    """Returns a collector with one batch of (index, label, predicted, confidence)."""
    collector = PredictionCollector(["cat", "dog"])
    index, label, predicted, confidence = (torch.tensor(column) for column in zip(*rows, strict=True))
    collector.add(index, label, predicted, confidence)
    return collector


def test_predictions_are_sorted_and_padding_is_dropped() -> None:
    collector = collect((2, 0, 1, 0.5), (-1, IGNORE_INDEX, 1, 0.5), (0, 1, 1, 1.0))
    collector.add(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0.75]))
    assert list(collector.gather(3)) == [
        ClassPrediction(0, "dog", "dog", 1.0),
        ClassPrediction(1, "cat", "cat", 0.75),
        ClassPrediction(2, "cat", "dog", 0.5),
    ]


def test_fields_of_the_data_stand_beside_each_prediction(tmp_path: Path) -> None:
    predictions = collect((0, 0, 1, 0.9), (1, 1, 1, 0.5)).gather(2)
    predictions.write(tmp_path / "p.jsonl", [{"file": "a.png", "label": "no"}, {"file": "é.png"}])
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"index": 0, "label": "cat", "predicted": "dog", "confidence": 0.9, "file": "a.png"}'
    assert json.loads(lines[1])["file"] == "é.png"
    assert read_predictions(tmp_path / "p.jsonl") == list(predictions)
    with pytest.raises(ValueError, match="shorter"):
        predictions.write(tmp_path / "p.jsonl", [{}])


def test_an_empty_split_has_no_predictions() -> None:
    assert list(PredictionCollector(["cat"]).gather(0)) == []


@pytest.mark.parametrize(
    ("rows", "num_samples", "message"),
    [
        ([0, 2], 4, r"rows 2 missing \(1, 3\)$"),
        ([0, 1, 1, 2, 2, 2], 3, r"rows 2 predicted more than once \(1, 2\)$"),
        ([0, 0, 3], 3, r"rows 1 predicted more than once \(0\), 2 missing \(1, 2\), 1 outside the split \(3\)$"),
        ([], 12, r"rows 12 missing \(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\)$"),
        ([5, 5], None, r"rows 1 predicted more than once \(5\)$"),
    ],
)
def test_missing_and_repeated_samples_are_named_as_a_bug(rows: list[int], num_samples: int | None, message: str) -> None:
    with pytest.raises(RuntimeError, match=message) as raised:
        check_complete(torch.tensor(rows, dtype=torch.int64), num_samples)
    assert not isinstance(raised.value, InputError)


def test_a_limited_test_may_predict_some_samples_only() -> None:
    check_complete(torch.tensor([7, 3]), None)


def test_written_predictions_are_read_back(tmp_path: Path) -> None:
    predictions = collect((1, 0, 1, 0.9), (0, 1, 1, NAN)).gather(None)
    path = tmp_path / "predictions.jsonl"
    predictions.write(path)
    assert len(path.read_text().splitlines()) == len(predictions)
    assert read_predictions(path) == list(predictions)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_line_format(tmp_path: Path) -> None:
    collect((0, 0, 1, 0.93)).gather(1).write(tmp_path / "classes.jsonl")
    line = {"index": 0, "label": "cat", "predicted": "dog", "confidence": 0.93}
    assert json.loads((tmp_path / "classes.jsonl").read_text()) == line


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "predictions.jsonl"
    collect((0, 0, 1, 0.9)).gather(1).write(path)
    before = path.read_text()

    def full(*arguments: object, **options: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("arclight.metrics.predictions.json.dumps", full)
    with pytest.raises(OSError, match="no space"):
        collect((0, 1, 1, 0.9)).gather(1).write(path)
    assert path.read_text() == before


GATHER = """
import sys, torch
from arclight.metrics.predictions import all_gather
rank, store = int(sys.argv[1]), torch.distributed.FileStore(sys.argv[2], 2)
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
print([[values.tolist() for values in all_gather(torch.arange(own[rank]))] for own in ((0, 0), (3, 0), (1, 2))])
"""


def test_one_process_gathers_its_own() -> None:
    assert [values.tolist() for values in all_gather(torch.arange(3))] == [[0, 1, 2]]


@pytest.mark.processes
def test_two_processes_gather_tensors_of_any_length(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", GATHER, str(rank), str(tmp_path / "store")] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert outputs == ["[[[], []], [[0, 1, 2], []], [[0], [0, 1]]]\n"] * 2
