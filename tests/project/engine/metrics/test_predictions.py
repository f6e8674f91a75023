"""Every test sample is predicted once, under any number of processes, and stands in the file as it was predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from arclight.config.locations import CONF
from arclight.data.samplers import Shard
from arclight.errors import InputError
from arclight.images.info import ImageInfo
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.predictions import ImagePrediction, PredictionCollector, SentencePrediction, check, read_predictions
from arclight.optim.schedulers import constant
from project.data.synthetic_images import SyntheticImages
from project.lightning_modules.image_classifier import ImageClassifier
from tests.project.engine.metrics.counted import ADAM, CASES, FirstPixels, count, found, module, new_kept

NAN = float("nan")


def images(*rows: tuple[int, int, int, float]) -> PredictionCollector:
    """One batch of (index, label, predicted, confidence)."""
    collector = PredictionCollector(["cat", "dog"], is_per_word=False)
    index, label, predicted, confidence = (torch.tensor(column) for column in zip(*rows, strict=True))
    collector.add(index, label, predicted, confidence)
    return collector


def sentences() -> PredictionCollector:
    """Row 1 of one word, then a row that fills, then row 0 of three words, the last of them cut off; row 2 has no word."""
    collector = PredictionCollector(["O", "B-PER"], is_per_word=True)
    no = IGNORE_INDEX
    collector.add(
        torch.tensor([1, -1]),
        torch.tensor([[1, no], [no, no]]),
        torch.tensor([[0, 0], [0, 0]]),
        torch.tensor([[0.5, NAN], [NAN, NAN]]),
    )
    collector.add(
        torch.tensor([0, 2]),
        torch.tensor([[0, 1, 1], [no, no, no]]),
        torch.tensor([[0, 1, 0], [0, 0, 0]]),
        torch.tensor([[0.25, 0.1234567, NAN], [NAN, NAN, NAN]]),
    )
    return collector


def test_images_come_back_in_input_order_without_what_fills() -> None:
    collector = images((2, 0, 1, 0.5), (-1, IGNORE_INDEX, 1, 0.5), (0, 1, 1, 1.0))
    collector.add(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0.75]))
    assert list(collector.gather(3)) == [
        ImagePrediction(0, "dog", "dog", 1.0),
        ImagePrediction(1, "cat", "cat", 0.75),
        ImagePrediction(2, "cat", "dog", 0.5),
    ]


def test_sentences_keep_their_words_together_and_say_which_the_net_never_saw() -> None:
    assert list(sentences().gather(3)) == [
        SentencePrediction(0, ("O", "B-PER", "B-PER"), ("O", "B-PER", "O"), (0.25, 0.123457, None)),
        SentencePrediction(1, ("B-PER",), ("O",), (0.5,)),
        SentencePrediction(2, (), (), ()),
    ]


def test_a_split_without_samples_has_no_predictions() -> None:
    assert list(PredictionCollector(["cat"], is_per_word=False).gather(0)) == []


@pytest.mark.parametrize(
    ("rows", "num_samples", "told"),
    [
        ([0, 2], 4, r"rows 2 missing \(1, 3\)$"),
        ([0, 1, 1, 2, 2, 2], 3, r"rows 2 predicted more than once \(1, 2\)$"),
        ([0, 0, 3], 3, r"rows 1 predicted more than once \(0\), 2 missing \(1, 2\), 1 not of the split \(3\)$"),
        ([], 12, r"rows 12 missing \(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\)$"),
        ([5, 5], None, r"rows 1 predicted more than once \(5\)$"),
    ],
)
def test_a_sample_missing_or_doubled_is_a_bug_that_names_it(rows: list[int], num_samples: int | None, told: str) -> None:
    with pytest.raises(RuntimeError, match=told) as raised:
        check(torch.tensor(rows, dtype=torch.int64), num_samples)
    assert not isinstance(raised.value, InputError)


def test_some_samples_of_a_test_cut_short_are_no_bug() -> None:
    check(torch.tensor([7, 3]), None)


@pytest.mark.parametrize("collector", [images((1, 0, 1, 0.9), (0, 1, 1, NAN)), sentences()], ids=["images", "text"])
def test_the_file_holds_a_line_per_sample_and_reads_back(collector: PredictionCollector, tmp_path: Path) -> None:
    predictions = collector.gather(None)
    path = tmp_path / "predictions.jsonl"
    predictions.write(path)
    assert len(path.read_text().splitlines()) == len(predictions)
    assert read_predictions(path) == list(predictions)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_the_lines_are_as_documented(tmp_path: Path) -> None:
    images((0, 0, 1, 0.93)).gather(1).write(tmp_path / "images.jsonl")
    assert json.loads((tmp_path / "images.jsonl").read_text()) == {
        "index": 0,
        "label": "cat",
        "predicted": "dog",
        "confidence": 0.93,
    }
    sentences().gather(3).write(tmp_path / "text.jsonl")
    assert json.loads((tmp_path / "text.jsonl").read_text().splitlines()[0]) == {
        "index": 0,
        "labels": ["O", "B-PER", "B-PER"],
        "predicted": ["O", "B-PER", "O"],
        "confidence": [0.25, 0.123457, None],
    }


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "predictions.jsonl"
    images((0, 0, 1, 0.9)).gather(1).write(path)
    before = path.read_text()

    def full(*arguments: object, **options: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("arclight.metrics.predictions.json.dumps", full)
    with pytest.raises(OSError, match="no space"):
        images((0, 1, 1, 0.9)).gather(1).write(path)
    assert path.read_text() == before


GOOD = '{"index": 0, "label": "cat", "predicted": "dog", "confidence": 0.9}\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"index": 1, "label": "ca', "damaged, Unterminated string"),
        ("", "damaged, Expecting value"),
        ("[1]", "damaged, no JSON object"),
        ('{"index": 1, "label": "cat", "predicted": "dog"}', "damaged, no key 'confidence'"),
        ('{"index": -1, "label": "cat", "predicted": "dog", "confidence": 0.9}', "index -1 is no whole number of 0 or more"),
        ('{"index": true, "label": "cat", "predicted": "dog", "confidence": 0.9}', "index True is no whole number"),
        ('{"index": 1, "label": 3, "predicted": "dog", "confidence": 0.9}', "3 is no label"),
        ('{"index": 1, "label": "cat", "predicted": "dog", "confidence": 1.5}', "confidence 1.5 is no number from 0 to 1"),
        ('{"index": 1, "labels": ["O"], "predicted": [], "confidence": [1]}', "are not lists of one length"),
        ('{"index": 1, "labels": "O", "predicted": "O", "confidence": "x"}', "are not lists of one length"),
    ],
)
def test_a_damaged_line_is_told_with_its_place(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(f"{GOOD}{line}\n{GOOD}")
    with pytest.raises(InputError, match=rf"predictions\.jsonl:2: .*{told}.*; write the file anew by running the test again"):
        read_predictions(path)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(InputError, match=r"predictions\.jsonl: no such file; a run leaves predictions.jsonl"):
        read_predictions(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"predictions\.jsonl cannot be read as predictions"):
        read_predictions(path)


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize(("kind", "num_samples"), CASES)
def test_counts_add_up_over_processes_to_those_of_one(kind: str, num_samples: int, world_size: int) -> None:
    """Also with more processes than samples, where some see nothing but rows that fill up."""
    collector, alone_kept = new_kept(module(kind)), new_kept(module(kind))
    alone = count(kind, num_samples, Shard(), alone_kept)
    ranks = [count(kind, num_samples, Shard(rank, world_size), collector) for rank in range(world_size)]

    def states(rank: torch.nn.Module) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": getattr(metric, key)
            for name, metric in rank.named_children()
            for key in getattr(metric, "_defaults", {})
        }

    wanted = states(alone)
    assert wanted
    for name, tensor in wanted.items():
        parts = [states(rank)[name] for rank in ranks]
        assert all(part.isfinite().all() for part in parts), name
        total = torch.stack(parts).sum(0)
        if tensor.is_floating_point():
            torch.testing.assert_close(total, tensor)
        else:
            assert torch.equal(total, tensor), name
    assert list(collector.gather(num_samples)) == list(alone_kept.gather(num_samples))


@pytest.mark.processes
def test_two_processes_score_and_gather_what_one_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.project.engine.metrics.counted"]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path)], cwd=CONF.parent, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1]
    for result, (kind, num_samples) in zip(both[0], CASES, strict=True):
        collector = new_kept(module(kind))
        alone = found(count(kind, num_samples, Shard(), collector), collector.gather(num_samples))
        assert result["predictions"] == alone["predictions"]
        assert result["counts"] == alone["counts"]
        assert result["numbers"] == pytest.approx(alone["numbers"])


@pytest.mark.parametrize(("limit", "num_predicted"), [(1.0, 11), (2, 8), (0.5, 4)])
def test_a_test_keeps_predictions_and_a_validation_none(limit: float, num_predicted: int) -> None:
    data = SyntheticImages(num_train=8, num_val=8, num_test=11, batch_size=4, eval_batch_size=4)
    data.setup("fit")
    assert isinstance(data.data_info, ImageInfo)
    classifier = ImageClassifier(
        data.data_info, net=torch.nn.Sequential(FirstPixels(), Pad(len(data.data_info.classes))), **SETTINGS
    )
    trainer = Trainer(limit_test_batches=limit, limit_val_batches=1, **QUIET)
    trainer.validate(classifier, datamodule=data, verbose=False)
    assert classifier.predictions is None
    for _ in range(2):  # a second pass does not add to the first
        trainer.test(classifier, datamodule=data, verbose=False)
        assert classifier.predictions is not None
        assert [prediction.index for prediction in classifier.predictions] == list(range(num_predicted))
    labels = [prediction.label for prediction in classifier.predictions if isinstance(prediction, ImagePrediction)]
    assert labels == [data.data_info.classes[label] for label in data.arrays["test"].labels[:num_predicted]]


class Pad(torch.nn.Module):
    """Three logits made as many as there are classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, logits: Tensor) -> Tensor:
        return torch.nn.functional.pad(logits, (0, self.num_classes - logits.shape[1]))


SETTINGS = {"make_optimizer": ADAM, "scheduler": constant}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
