"""Calibration: of everything predicted with a confidence of 80 %, is 80 % correct?

Source: Guo et al., "On calibration of modern neural networks", 2017: reliability diagram and expected calibration error with
bins of equal width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from arclight.metrics.records import Prediction

NUM_BINS = 10


class Bin(NamedTuple):
    """Predictions of similar confidence: their number, mean confidence and accuracy."""

    num: int
    confidence: float
    accuracy: float


class Calibration(NamedTuple):
    """Expected calibration error, mean confidence and accuracy, each 0..1; empty bins are left out."""

    error: float
    confidence: float
    accuracy: float
    num: int
    bins: list[Bin]


def calibrate(predictions: Sequence[Prediction]) -> Calibration | None:
    """Returns the calibration over all entries that have a confidence; None when none has."""
    entries = [entry for prediction in predictions for entry in prediction.entries() if entry[2] is not None]
    if not entries:
        return None
    confidence = np.array([sure for _, _, sure in entries], dtype=np.float64)
    return calibration_of(confidence, np.array([label == predicted for label, predicted, _ in entries]))


def calibration_of(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """Returns the calibration of confidences (N,), 0..1, and whether each prediction was correct, bool (N,)."""
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    num, sums, hits = (np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (None, confidence, correct))
    filled = [Bin(int(n), float(s / n), float(h / n)) for n, s, h in zip(num, sums, hits, strict=True) if n]
    error = sum(one.num * abs(one.confidence - one.accuracy) for one in filled) / len(confidence)
    return Calibration(error, float(confidence.mean()), float(correct.mean()), len(confidence), filled)
