"""Bootstrap confidence intervals, and a paired significance test of two models, from counts per test sample.

Counts are int64 (samples, 3): true positives, predicted, true. The metric is F1 of their sums, which for one label per sample
is the accuracy. Samples with equal counts are drawn together, as one multinomial draw of how often each kind occurs: the same
distribution as drawing samples one by one, in a hundredth of the time.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 (percentile intervals) and 16 (tests); for
metrics that are not means over samples, Koehn, "Statistical significance tests for machine translation evaluation", 2004.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arclight.metrics.records import Counts

RESAMPLES = 10_000
QUANTILES = (0.025, 0.975)  # of the resampled values, the ends of a 95 % interval


class Difference(NamedTuple):
    """Metric of the second model minus that of the first, its 95 % interval, and the two-sided p-value.

    `covers` names what else might come out another way: the test "samples", the "seeds", or both.
    """

    value: float
    low: float
    high: float
    p: float
    covers: str = "samples"


def f1_score(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns F1 of counts (..., 3); 0 where nothing is predicted and nothing true."""
    return 2.0 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)


def resample(counts: NDArray[np.int64], *, num_resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Returns sums (resamples, K) of counts (samples, K), over as many samples drawn with replacement."""
    kinds, frequencies = np.unique(counts, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), frequencies / len(counts), size=num_resamples)
    sums: NDArray[np.int64] = draws @ kinds
    return sums


def confidence_interval(counts: Counts, *, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the metric."""
    low, high = np.quantile(f1_score(resample(counts, seed=seed)), QUANTILES)
    return float(low), float(high)


def paired_test(first: Counts, second: Counts) -> Difference:
    """Returns the difference of two models that were tested on the same samples, row for row.

    Each resample draws samples and takes both models' counts of them. The p-value is twice the fraction of resampled
    differences on the rarer side of 0, at most 1; one is added to both numbers, so that it is never 0. It says whether other
    test samples could reverse the difference, not whether other seeds could: for several seeds see `metrics.significance`.

    Raises:
        ValueError: when the two have different numbers of samples, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} samples cannot be paired")
    sums = resample(np.concatenate([first, second], axis=1))
    differences = f1_score(sums[:, 3:]) - f1_score(sums[:, :3])
    low, high = np.quantile(differences, QUANTILES)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    value = float(f1_score(second.sum(0)) - f1_score(first.sum(0)))
    return Difference(value, float(low), float(high), min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)))
