"""The test samples that a model was most sure of and wrong about: where the analysis of errors begins."""

from __future__ import annotations

from collections.abc import Iterable

from arclight.metrics.prediction_file import ImagePrediction, Prediction

MOST = 24  # that a run keeps to look at


def most_confident_errors(predictions: Iterable[Prediction], num: int = MOST) -> list[Prediction]:
    """The wrong ones by falling confidence of what is wrong in them; of equally sure ones the first in the split come first."""
    wrong = [(confidence_of(prediction), prediction) for prediction in predictions if prediction_is_wrong(prediction)]
    return [prediction for _, prediction in sorted(wrong, key=lambda pair: (-pair[0], pair[1].index))[:num]]


def prediction_is_wrong(prediction: Prediction) -> bool:
    """Whether the label, or that of any word, is another one."""
    if isinstance(prediction, ImagePrediction):
        return prediction.label != prediction.predicted
    return prediction.labels != prediction.predicted


def confidence_of(prediction: Prediction) -> float:
    """The highest confidence of a label that is wrong, 0..1; 0 where it has none."""
    if isinstance(prediction, ImagePrediction):
        return prediction.confidence or 0.0
    places = zip(prediction.labels, prediction.predicted, prediction.confidence, strict=True)
    return max((confidence or 0.0 for label, predicted, confidence in places if label != predicted), default=0.0)
