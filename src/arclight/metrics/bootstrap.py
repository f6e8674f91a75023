"""How sure a score is: bootstrap intervals, and a paired test of two models, from counts per test sample.

Counts are int64 (samples, 3), how much in each sample is right, predicted and true; a score is F1 of their sums, which for one
prediction and one truth per sample is the accuracy. Samples with equal counts are drawn together, as one multinomial draw of
how often each kind comes up: the same distribution as drawing samples one by one, in a hundredth of the time.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 (percentile intervals) and 16 (tests); for
scores that are no means of samples, Koehn, "Statistical significance tests for machine translation evaluation", 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arclight.metrics.prediction_file import ImagePrediction, Prediction, SentencePrediction
from arclight.text.spans import spans_of

RESAMPLES = 10_000
SHARE = 0.95  # of the resampled scores that an interval holds

Counts = NDArray[np.int64]


class Difference(NamedTuple):
    """Score of the second less that of the first, its interval, and the two-sided p-value of there being none."""

    value: float
    low: float
    high: float
    p: float


def score(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of counts (..., 3), 0 where nothing is predicted and nothing true."""
    whole = sums[..., 1] + sums[..., 2]
    return 2.0 * sums[..., 0] / np.maximum(whole, 1)


def resample(counts: NDArray[np.int64], *, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Sums (resamples, K) of counts (samples, K) over as many samples as there are, drawn with replacement."""
    kinds, how_often = np.unique(counts, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), how_often / len(counts), size=num_resamples)
    sums: NDArray[np.int64] = draws @ kinds
    return sums


def interval(counts: Counts, *, num_resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of the score, 95 %."""
    low, high = np.quantile(score(resample(counts, num_resamples=num_resamples, seed=seed)), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def compare(first: Counts, second: Counts, *, num_resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """The difference of two models that were tested on the same samples, row for row.

    Each resample draws samples and takes both models' counts of them. The p-value is twice the share of resampled differences
    on the side of 0 where fewer are, at most 1; one is added to both numbers, so that it is never 0. It answers whether other
    test samples could turn the difference, not whether other seeds could: of several seeds give the sums of their counts.

    Raises:
        ValueError: when the two have not equally many samples, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} samples cannot be paired")
    sums = resample(np.concatenate([first, second], axis=1), num_resamples=num_resamples, seed=seed)
    differences = score(sums[:, 3:]) - score(sums[:, :3])
    low, high = np.quantile(differences, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    value = float(score(second.sum(0)) - score(first.sum(0)))
    return Difference(value, float(low), float(high), min(1.0, 2 * (tail + 1) / (num_resamples + 1)))


def count(predictions: Sequence[Prediction]) -> dict[str, Counts]:
    """Counts per sample by the score they give: "accuracy", for sentences "f1", and "f1/NAME" of each class or type."""
    images = [prediction for prediction in predictions if isinstance(prediction, ImagePrediction)]
    sentences = [prediction for prediction in predictions if isinstance(prediction, SentencePrediction)]
    if images and sentences:
        raise ValueError("it holds images and sentences")
    return count_images(images) if images else count_sentences(sentences) if sentences else {}


def count_images(images: Sequence[ImagePrediction]) -> dict[str, Counts]:
    """As `count`."""
    names = sorted({name for image in images for name in (image.label, image.predicted)})
    number = {name: place for place, name in enumerate(names)}
    true = np.array([number[image.label] for image in images])
    predicted = np.array([number[image.predicted] for image in images])
    ones = np.ones(len(images), dtype=np.int64)
    counts = {"accuracy": np.stack([(true == predicted).astype(np.int64), ones, ones], axis=1)}
    for name, place in number.items():
        columns = [(true == place) & (predicted == place), predicted == place, true == place]
        counts[f"f1/{name}"] = np.stack(columns, axis=1).astype(np.int64)
    return counts


def count_sentences(sentences: Sequence[SentencePrediction]) -> dict[str, Counts]:
    """As `count`."""
    entities: dict[str, Counts] = {}
    words = np.zeros((len(sentences), 3), dtype=np.int64)
    whole = np.zeros_like(words)
    for row, sentence in enumerate(sentences):
        right = sum(true == predicted for true, predicted in zip(sentence.labels, sentence.predicted, strict=True))
        words[row] = right, len(sentence.labels), len(sentence.labels)
        true, predicted = set(spans_of(sentence.labels)), set(spans_of(sentence.predicted))
        for column, spans in enumerate((true & predicted, predicted, true)):
            for span in spans:
                entities.setdefault(span.type, np.zeros_like(words))[row, column] += 1
                whole[row, column] += 1
    return {"f1": whole, "accuracy": words, **{f"f1/{name}": entities[name] for name in sorted(entities)}}
