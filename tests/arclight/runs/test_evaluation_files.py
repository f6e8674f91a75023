from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from arclight.checkpoint.contents import Restored
from arclight.errors import InputError
from arclight.metrics.predictions import PredictionCollector
from arclight.modules.supervised import Scores
from arclight.runs.evaluation_files import evaluation_dir, write_evaluation


@pytest.fixture
def restored() -> Restored:
    collector = PredictionCollector(("cat", "dog"))
    collector.add(torch.tensor([1, 0]), torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([0.9, 0.8]))
    module = SimpleNamespace(predictions=collector.gather(2))
    return Restored(module, None, {}, "pets", "cnn", Path("outputs/a/b/checkpoints/best.ckpt"))  # type: ignore[arg-type]


def test_an_evaluation_is_in_its_run_or_in_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = evaluation_dir(Path("outputs/a/b/checkpoints/best.ckpt"))
    assert own.parent == Path("outputs/a/b/evaluations")
    assert evaluation_dir(tmp_path / "stranger.ckpt").parent == Path("outputs/evaluations")
    own.mkdir(parents=True)
    assert evaluation_dir(Path("outputs/a/b/checkpoints/best.ckpt")) != own


def test_scores_predictions_and_report_are_written(tmp_path: Path, restored: Restored) -> None:
    data = SimpleNamespace(sample_fields=lambda split, rows: [{"file": f"{split}/{row}.png"} for row in rows])
    scores = Scores({"accuracy": 0.5}, per_class={"dog": 0.25}, tables=(), labels=("cat", "dog"), counts=[[0, 1], [0, 1]])
    folder = tmp_path / "evaluations" / "now"
    write_evaluation(folder, restored, scores, data, settings={"seed": 3, "data": {"root": "pets"}}, split="test")
    results = json.loads((folder / "results.json").read_text())
    assert results == {
        **{"status": "finished", "data": "pets", "model": "cnn", "seed": 3, "split": "test"},
        **{"test/accuracy": 0.5, "test/f1/dog": 0.25, "evaluated": "outputs/a/b/checkpoints/best.ckpt"},
    }
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [(line["label"], line["predicted"], line["file"]) for line in lines] == [
        ("dog", "dog", "test/0.png"),
        ("cat", "dog", "test/1.png"),
    ]
    assert (folder / "data.yaml").read_text() == "root: pets\n"
    page = (folder / "report.html").read_text()
    assert "outputs/a/b/checkpoints/best.ckpt" in page
    assert "There is no" not in page


@pytest.mark.parametrize("fields", [[{"file": Path("x")}] * 2, [{"file": "x"}], None])
def test_fields_that_json_cannot_hold_cost_only_themselves(
    fields: object, tmp_path: Path, restored: Restored, caplog: pytest.LogCaptureFixture
) -> None:
    data = SimpleNamespace(sample_fields=lambda split, rows: fields)
    scores = Scores({}, per_class={}, tables=(), labels=(), counts=[])
    write_evaluation(tmp_path, restored, scores, data, settings={"data": {}}, split="test")
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["confidence", "index", "label", "predicted"]] * 2
    assert ("sample_fields of SimpleNamespace failed" in caplog.text) == (fields is not None)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path, restored: Restored) -> None:
    (tmp_path / "file").touch()
    scores = Scores({}, per_class={}, tables=(), labels=(), counts=[])
    with pytest.raises(InputError, match="could not be written"):
        write_evaluation(tmp_path / "file" / "x", restored, scores, None, settings={"data": {}}, split="test")
