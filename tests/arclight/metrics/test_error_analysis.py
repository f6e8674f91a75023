from __future__ import annotations

import pytest

from arclight.errors import InputError
from arclight.metrics.error_analysis import (
    Confusion,
    most_confident_errors,
    scores_by_class,
    scores_by_length,
    worst_confusions,
)
from arclight.metrics.records import ClassPrediction, Prediction

CLASSES: list[Prediction] = [
    ClassPrediction(row, label, predicted, 0.9) for row, (label, predicted) in enumerate(zip("aaaabbc", "aabbbca", strict=True))
]


def test_worst_confusions() -> None:
    assert worst_confusions(CLASSES) == [
        Confusion("a", "b", 2, 0.5),
        Confusion("c", "a", 1, 1.0),
        Confusion("b", "c", 1, 0.5),
    ]
    assert len(worst_confusions(CLASSES, num=1)) == 1
    assert worst_confusions([]) == []


def test_scores_by_class() -> None:
    scored = scores_by_class(CLASSES)
    assert [(one.name, one.num_samples) for one in scored] == [("a", 4), ("b", 2), ("c", 1)]
    assert [one.score for one in scored] == pytest.approx([2 * 2 / (4 + 3), 2 * 1 / (2 + 3), 0.0])
    assert all(0 <= one.low <= one.score <= one.high <= 1 for one in scored)


def test_single_labels_have_no_length() -> None:
    with pytest.raises(InputError, match="one label per sample have no length; use scores_by_class"):
        scores_by_length(CLASSES)


def test_errors_are_sorted_by_confidence_then_row() -> None:
    samples = [("a", 0.9), ("b", 0.5), ("b", 0.8), ("b", None), ("b", 0.8)]
    predictions = [ClassPrediction(index, "a", predicted, sure) for index, (predicted, sure) in enumerate(samples)]
    assert [error.index for error in most_confident_errors(predictions)] == [2, 4, 1, 3]
    assert [error.index for error in most_confident_errors(predictions, 1)] == [2]
