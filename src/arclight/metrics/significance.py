"""Would other seeds show the same difference? Tests of two groups of runs that differ in more than the seed.

The variance of a difference has two parts. Seeds: how far runs of one group lie apart, as in Welch's t test. Samples: how far
another test set would favour one group, estimated in a mixed model with random effects of seeds, samples and their interaction,
as for readers and cases of a diagnostic study. Both parts enter one t test, whose degrees of freedom are Satterthwaite's. Few
seeds may by chance lie close together: the larger p-value of this test and of Welch's counts.

Source: Welch, "The generalization of Student's problem when several different population variances are involved", 1947;
Satterthwaite, 1946; Gallas, "One-shot estimate of MRMC variance: AUC", 2006; Hillis, "A comparison of denominator degrees of
freedom methods for multiple observer ROC analysis", 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arclight.metrics.bootstrap import QUANTILES, Difference, f1_score
from arclight.metrics.records import Counts


def compare_values(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Returns the difference of the means of a metric over seeds, by Welch's t test; the test samples count as given.

    The seeds of a group with one run are taken to vary as those of the other.

    Raises:
        ValueError: when a group has no values, or both have only one.
    """
    if min(len(first), len(second)) < 1 or len(first) + len(second) < 3:
        raise ValueError(f"{len(first)} and {len(second)} seeds cannot be compared: one group must have two or more")
    value = float(np.mean(second) - np.mean(first))
    return t_test(value, _seed_parts(np.array(first, dtype=float), np.array(second, dtype=float)), covers="seeds")


def compare_counts(first: Sequence[Counts], second: Sequence[Counts]) -> Difference:
    """Returns the difference of the mean metric of two groups of runs that were tested on the same samples, row for row.

    Args:
        first: the counts of each run, int64 (samples, 3), as `metrics.bootstrap` takes them.
        second: those of the other group.

    Raises:
        ValueError: when the numbers of samples differ, there are fewer than two, or both groups have only one run.
    """
    lengths = {len(counts) for counts in (*first, *second)}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(f"{', '.join(map(str, sorted(lengths)))} samples cannot be compared")
    values = [np.stack([contributions(counts) for counts in group]) for group in (first, second)]
    scores = [own.mean(axis=1) for own in values]
    over_seeds = compare_values(*map(list, scores))
    num_samples = lengths.pop()
    noise = [_interaction(own) for own in values if len(own) > 1]
    noises = (noise[0], noise[-1])  # a group with one run has the noise of the other
    of_differences = float((values[1].mean(axis=0) - values[0].mean(axis=0)).var(ddof=1))
    of_samples = of_differences - sum(own / len(group) for own, group in zip(noises, values, strict=True))
    parts = [*_seed_parts(*scores), (max(0.0, of_samples) / num_samples, num_samples - 1)]
    tests = over_seeds, t_test(over_seeds.value, parts, covers="")
    return max(tests, key=lambda test: (test.p, test.high - test.low))._replace(covers="seeds, samples")


def contributions(counts: Counts) -> NDArray[np.float64]:
    """Returns what each sample contributes to the metric, float64 (samples,): the metric is their mean.

    For an accuracy, whether the sample is correct; for other metrics the first-order effect of the sample (delta method).
    """
    sums = counts.sum(axis=0)
    metric = float(f1_score(sums))
    effects: NDArray[np.float64] = 2.0 * counts[:, 0] - metric * (counts[:, 1] + counts[:, 2])
    return metric + effects * (len(counts) / max(int(sums[1] + sums[2]), 1))


def t_test(value: float, parts: Sequence[tuple[float, float]], *, covers: str) -> Difference:
    """Returns a difference with its 95 % interval and p-value; `parts` are variances with their degrees of freedom."""
    from scipy.special import stdtr, stdtrit  # a second to import

    variance = sum(part for part, _ in parts)
    if not variance:  # all seeds have the same value
        return Difference(value, value, value, float(value == 0), covers)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, QUANTILES[1])) * error
    return Difference(value, value - half, value + half, 2 * float(stdtr(freedom, -abs(value) / error)), covers)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95 % t interval of the mean over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    of_mean = t_test(mean, [(float(np.var(values, ddof=1)) / len(values), len(values) - 1)], covers="seeds")
    return of_mean.low, of_mean.high


def _seed_parts(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Returns the variance of each group's mean over seeds, with its degrees of freedom; one where only one group has any."""
    known = [group for group in (first, second) if len(group) > 1]
    if len(known) == 1:
        spread = float(known[0].var(ddof=1))
        return [(spread / len(first) + spread / len(second), len(known[0]) - 1)]
    return [(float(group.var(ddof=1)) / len(group), len(group) - 1) for group in known]


def _interaction(values: NDArray[np.float64]) -> float:
    """Returns the variance of values (seeds, samples) that neither the seed nor the sample explains."""
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    num_seeds, num_samples = values.shape
    return float((rest**2).sum()) / ((num_seeds - 1) * (num_samples - 1))
