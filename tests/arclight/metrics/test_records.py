"""Prediction records are registered by a key of their line, validated when read, and counted per sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arclight.errors import InputError
from arclight.metrics.records import RECORD_TYPES, ClassPrediction, metric_counts, parse_record, read_predictions

GOOD = '{"index": 0, "label": "cat", "predicted": "dog", "confidence": 0.9}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"index": 1, "label": "ca', "damaged, Unterminated string"),
        ("", "damaged, Expecting value"),
        ("[1]", "damaged, not a JSON object"),
        ('{"index": 1, "label": "cat", "predicted": "dog"}', "damaged, confidence: Field required"),
        (
            '{"index": -1, "label": "cat", "predicted": "dog", "confidence": 0.9}',
            "index: Input should be greater",
        ),
        ('{"index": true, "label": "cat", "predicted": "dog", "confidence": 0.9}', "index: Input should be a valid integer"),
        ('{"index": 1, "label": 3, "predicted": "dog", "confidence": 0.9}', "label: Input should be a valid string"),
        (
            '{"index": 1, "label": "cat", "predicted": "dog", "confidence": 1.5}',
            "confidence: Input should be less",
        ),
        ('{"index": 1, "label": "cat", "predicted": "dog", "confidence": NaN}', "confidence: Input should be"),
        ('{"index": 1, "label": "cat", "predicted": "dog", "confidence": true}', "confidence: Input should be a valid number"),
        ('{"index": 1}', "damaged, label: Field required"),
    ],
)
def test_a_damaged_line_is_reported_with_its_place(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(f"{GOOD}{line}\n{GOOD}")
    with pytest.raises(InputError, match=rf"predictions\.jsonl:2: .*{message}.*; run the test again to rewrite the file"):
        read_predictions(path)


def test_a_missing_or_binary_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(InputError, match=r"predictions\.jsonl: no such file; a run writes predictions.jsonl at the end"):
        read_predictions(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"predictions\.jsonl cannot be read as predictions"):
        read_predictions(path)


def test_counts_of_classes() -> None:
    pairs = [("cat", "cat"), ("cat", "dog"), ("dog", "dog")]
    counts = metric_counts([ClassPrediction(index, true, predicted, 0.5) for index, (true, predicted) in enumerate(pairs)])
    assert {name: value.sum(0).tolist() for name, value in counts.items()} == {
        "accuracy": [2, 3, 3],
        "f1/cat": [1, 1, 2],
        "f1/dog": [1, 2, 1],
    }
    assert metric_counts([]) == {}


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(RECORD_TYPES)
    yield
    RECORD_TYPES.clear()
    RECORD_TYPES.update(before)


@pytest.mark.usefixtures("registered")
def test_a_record_type_registers_itself() -> None:
    class Own(ClassPrediction):
        key = "own"

    fields = {"index": 0, "label": "a", "predicted": "b", "confidence": None}
    assert type(parse_record(fields)) is ClassPrediction
    with pytest.raises(ValueError, match="several types: ClassPrediction, Own"):
        metric_counts([parse_record(fields), Own(1, "a", "a", None)])
    with pytest.raises(ValueError, match="the key 'label' has no words"):
        parse_record(fields).mark(["a"])
