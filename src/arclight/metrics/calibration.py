"""Whether confidence can be believed: of what was predicted with 80 %, is 80 % right?

Source: Guo et al., "On calibration of modern neural networks", 2017: reliability diagram and expected calibration error with
bins of equal width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arclight.metrics.prediction_file import ImagePrediction, Prediction

BINS = 10


class Bin(NamedTuple):
    """Predictions whose confidence is nearly the same: how many, mean confidence, share that is right."""

    num: int
    confidence: float
    right: float


class Calibration(NamedTuple):
    """How confidence and what was right go together; bins without predictions are left out.

    `error` is their mean distance, 0..1, each bin weighted by how many predictions it holds.
    """

    error: float
    confidence: float
    right: float
    num: int
    bins: list[Bin]


def calibrate(predictions: Sequence[Prediction]) -> Calibration | None:
    """The calibration of images, or of words; what has no confidence counts nowhere. None when nothing has one."""
    confidence: list[float] = []
    right: list[bool] = []
    for prediction in predictions:
        if isinstance(prediction, ImagePrediction):
            entries = [(prediction.confidence, prediction.label == prediction.predicted)]
        else:
            truths = zip(prediction.labels, prediction.predicted, strict=True)
            entries = [(sure, true == said) for sure, (true, said) in zip(prediction.confidence, truths, strict=True)]
        confidence += [sure for sure, _ in entries if sure is not None]
        right += [is_right for sure, is_right in entries if sure is not None]
    if not confidence:
        return None
    return summarise(np.array(confidence), np.array(right))


def summarise(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Of confidence (N,) from 0 to 1 and whether each was right (N,)."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    num, sums, rights = (np.bincount(places, weights=values, minlength=BINS) for values in (None, confidence, right))
    bins = [Bin(int(n), float(s / n), float(r / n)) for n, s, r in zip(num, sums, rights, strict=True) if n]
    error = sum(part.num * abs(part.confidence - part.right) for part in bins) / len(confidence)
    return Calibration(error, float(confidence.mean()), float(right.mean()), len(confidence), bins)
