from __future__ import annotations

from arclight.metrics.confident_errors import most_confident_errors
from arclight.metrics.prediction_file import ImagePrediction, SentencePrediction


def test_the_surest_wrong_images_come_first() -> None:
    said = [("a", 0.9), ("b", 0.5), ("b", 0.8), ("b", None), ("b", 0.8)]
    images = [ImagePrediction(index, "a", predicted, sure) for index, (predicted, sure) in enumerate(said)]
    assert [mistake.index for mistake in most_confident_errors(images)] == [2, 4, 1, 3]
    assert [mistake.index for mistake in most_confident_errors(images, 1)] == [2]


def test_a_sentence_is_as_sure_as_its_surest_wrong_word() -> None:
    right_but_sure = SentencePrediction(0, ("O", "B-X"), ("O", "O"), (0.99, 0.3))
    wrong_and_sure = SentencePrediction(1, ("O", "B-X"), ("B-X", "O"), (0.2, 0.6))
    cut = SentencePrediction(2, ("B-X",), ("O",), (None,))
    all_right = SentencePrediction(3, ("O",), ("O",), (1.0,))
    assert [mistake.index for mistake in most_confident_errors([right_but_sure, all_right, cut, wrong_and_sure])] == [1, 0, 2]
