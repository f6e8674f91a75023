"""Sentence records: one entry per word, counts over entities, marks for the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.calibration import calibrate
from arclight.metrics.error_analysis import (
    Confusion,
    most_confident_errors,
    scores_by_class,
    scores_by_length,
    worst_confusions,
)
from arclight.metrics.predictions import PredictionCollector
from arclight.metrics.records import ClassPrediction, metric_counts, parse_lines, read_predictions
from arclight.text.records import SentencePrediction

NAN = float("nan")


def collect() -> PredictionCollector:
    """Row 1 with one word, then a padding row, then row 0 with three words of which the last is truncated; row 2 is empty."""
    collector = PredictionCollector(["O", "B-PER"], SentencePrediction)
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


def sentence(labels: str, predicted: str) -> SentencePrediction:
    names = {"O": "O", "B": "B-PER", "I": "I-PER", "L": "B-LOC"}
    tags = [tuple(names[letter] for letter in letters) for letters in (labels, predicted)]
    return SentencePrediction(0, *tags, confidence=(0.5,) * len(labels))


SENTENCES = [sentence("BO", "BO"), sentence("LO", "OO"), sentence("BIOO", "BIOO"), sentence("OBOOOO", "OLOOOO")]


def test_words_stay_together_and_truncated_words_have_no_confidence() -> None:
    assert list(collect().gather(3)) == [
        SentencePrediction(0, ("O", "B-PER", "B-PER"), ("O", "B-PER", "O"), (0.25, 0.123457, None)),
        SentencePrediction(1, ("B-PER",), ("O",), (0.5,)),
        SentencePrediction(2, (), (), ()),
    ]


def test_written_predictions_are_read_back(tmp_path: Path) -> None:
    predictions = collect().gather(3)
    path = tmp_path / "predictions.jsonl"
    predictions.write(path)
    assert read_predictions(path) == list(predictions)
    assert json.loads(path.read_text().splitlines()[0]) == {
        "index": 0,
        "labels": ["O", "B-PER", "B-PER"],
        "predicted": ["O", "B-PER", "O"],
        "confidence": [0.25, 0.123457, None],
    }


def test_the_reader_imports_this_record_type_when_a_line_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    collect().gather(3).write(path)
    program = f"""
import sys
from arclight.metrics.records import read_predictions
assert "arclight.text" not in sys.modules
print(len(read_predictions({str(path)!r})), "arclight.text.records" in sys.modules, "torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == "3 True False\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ["O"], "predicted": [], "confidence": [1]}, "must be lists of the same length"),
        ({"labels": "O", "predicted": "O", "confidence": "x"}, "labels: Input should be a valid tuple"),
        ({"labels": ["O"], "predicted": ["O"], "confidence": [2]}, "confidence.0"),
    ],
)
def test_a_damaged_line_is_reported(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"line:1: damaged, {message}" if "must" not in message else message):
        parse_lines(json.dumps({"index": 1, **fields}), "line")


def test_counts_of_entities_and_words() -> None:
    one = SentencePrediction(0, ("B-PER", "I-PER", "O"), ("B-PER", "O", "B-LOC"), (0.5, 0.5, None))
    two = SentencePrediction(1, ("B-LOC",), ("B-LOC",), (0.5,))
    counts = metric_counts([one, two])
    assert {name: value.tolist() for name, value in counts.items()} == {
        "f1": [[0, 2, 1], [1, 1, 1]],
        "accuracy": [[1, 3, 3], [1, 1, 1]],
        "f1/LOC": [[0, 1, 0], [1, 1, 1]],
        "f1/PER": [[0, 1, 1], [0, 0, 0]],
    }
    with pytest.raises(ValueError, match="records of several types"):
        metric_counts([one, ClassPrediction(1, "a", "b", 0.5)])


def test_calibration_counts_every_word_with_a_confidence() -> None:
    found = calibrate([SentencePrediction(0, ("O", "B-X", "O"), ("O", "O", "O"), (0.5, 0.75, None))])
    assert found is not None
    assert (found.num, found.confidence, found.accuracy) == (2, 0.625, 0.5)


def test_errors_are_sorted_by_their_most_confident_wrong_word() -> None:
    confident_where_right = SentencePrediction(0, ("O", "B-X"), ("O", "O"), (0.99, 0.3))
    confident_where_wrong = SentencePrediction(1, ("O", "B-X"), ("B-X", "O"), (0.2, 0.6))
    truncated = SentencePrediction(2, ("B-X",), ("O",), (None,))
    correct = SentencePrediction(3, ("O",), ("O",), (1.0,))
    errors = most_confident_errors([confident_where_right, correct, truncated, confident_where_wrong])
    assert [error.index for error in errors] == [1, 0, 2]


def test_confusions_and_scores() -> None:
    assert worst_confusions(SENTENCES) == [Confusion("B-LOC", "O", 1, 1.0), Confusion("B-PER", "B-LOC", 1, 1 / 3)]
    assert {one.name for one in scores_by_class(SENTENCES)} == {"LOC", "PER"}


def test_scores_by_length() -> None:
    scored = scores_by_length(SENTENCES, edges=(2, 4))
    assert [(one.name, one.num_samples) for one in scored] == [("1 to 2", 2), ("3 to 4", 1), ("5 or more", 1)]
    assert [one.score for one in scored] == pytest.approx([2 * 1 / 3, 1.0, 0.0])
    assert [one.name for one in scores_by_length(SENTENCES, edges=(8, 9), metric="accuracy")] == ["1 to 8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edges": (5, 5)}, r"edges=\[5, 5\] must be rising whole numbers from 1, such as \[5, 10, 20, 40\]"),
        ({"edges": ()}, "must be rising"),
        ({"edges": (0, 5)}, "must be rising"),
        ({"metric": "f2"}, "metric='f2' is not available for these predictions; use one of f1, accuracy, f1/LOC, f1/PER"),
    ],
)
def test_invalid_arguments_are_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scores_by_length(SENTENCES, **arguments)


def test_marks_need_a_word_for_every_label() -> None:
    with pytest.raises(ValueError, match="row 0: 1 words and 2 labels"):
        SENTENCES[0].mark(["a"])
