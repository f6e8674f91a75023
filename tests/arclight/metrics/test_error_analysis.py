from __future__ import annotations

from typing import Any

import pytest

from arclight.errors import InputError
from arclight.metrics.error_analysis import Confusion, scores_by_class, scores_by_length, worst_confusions
from arclight.metrics.prediction_file import ImagePrediction, Prediction, SentencePrediction

IMAGES: list[Prediction] = [
    ImagePrediction(row, label, predicted, 0.9) for row, (label, predicted) in enumerate(zip("aaaabbc", "aabbbca", strict=True))
]


def sentence(labels: str, predicted: str) -> SentencePrediction:
    names = {"O": "O", "B": "B-PER", "I": "I-PER", "L": "B-LOC"}
    tags = [tuple(names[letter] for letter in letters) for letters in (labels, predicted)]
    return SentencePrediction(0, *tags, confidence=(0.5,) * len(labels))


SENTENCES = [sentence("BO", "BO"), sentence("LO", "OO"), sentence("BIOO", "BIOO"), sentence("OBOOOO", "OLOOOO")]


def test_the_worst_confusions_of_images() -> None:
    assert worst_confusions(IMAGES) == [
        Confusion("a", "b", 2, 0.5),
        Confusion("c", "a", 1, 1.0),
        Confusion("b", "c", 1, 0.5),
    ]
    assert len(worst_confusions(IMAGES, num=1)) == 1
    assert worst_confusions([]) == []


def test_the_worst_confusions_of_words() -> None:
    assert worst_confusions(SENTENCES) == [Confusion("B-LOC", "O", 1, 1.0), Confusion("B-PER", "B-LOC", 1, 1 / 3)]


def test_the_score_of_each_class() -> None:
    scored = scores_by_class(IMAGES)
    assert [(one.name, one.num_samples) for one in scored] == [("a", 4), ("b", 2), ("c", 1)]
    assert [one.score for one in scored] == pytest.approx([2 * 2 / (4 + 3), 2 * 1 / (2 + 3), 0.0])
    assert all(0 <= one.low <= one.score <= one.high <= 1 for one in scored)
    assert {one.name for one in scores_by_class(SENTENCES)} == {"LOC", "PER"}


def test_the_score_at_each_length() -> None:
    scored = scores_by_length(SENTENCES, edges=(2, 4))
    assert [(one.name, one.num_samples) for one in scored] == [("1 to 2", 2), ("3 to 4", 1), ("5 or more", 1)]
    assert [one.score for one in scored] == pytest.approx([2 * 1 / 3, 1.0, 0.0])
    assert [one.name for one in scores_by_length(SENTENCES, edges=(8, 9), metric="accuracy")] == ["1 to 8"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"predictions": IMAGES}, "predictions of images have no length; scores_by_class tells where they are wrong"),
        ({"edges": (5, 5)}, r"edges=\[5, 5\] must be rising numbers of words from 1 on, such as \[5, 10, 20, 40\]"),
        ({"edges": ()}, "must be rising"),
        ({"edges": (0, 5)}, "must be rising"),
        ({"metric": "f2"}, "metric='f2' is not counted of these predictions; take one of f1, accuracy, f1/LOC, f1/PER"),
    ],
)
def test_a_wrong_wish_is_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        scores_by_length(**{"predictions": SENTENCES, **arguments})
