"""Tests over seeds are calibrated: of two groups of the same recipe, few differ significantly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from arclight.metrics.bootstrap import f1_score
from arclight.metrics.significance import compare_counts, compare_values, contributions, mean_interval, t_test
from tests.arclight.metrics.test_bootstrap import entity_counts

SD = 0.008  # between the accuracies of seeds


def simulated_runs(random: Any, difficulty: Any, *, seeds: int, sd: float = SD, gain: float = 0.0) -> list[Any]:
    """Returns the counts of runs of one recipe: `difficulty` is each sample's probability of being correct."""
    chances = difficulty + gain + sd * random.standard_normal((seeds, 1))
    right = (random.random((seeds, len(difficulty)), dtype=np.float32) < chances).astype(np.int64)
    return [np.stack([run, np.ones_like(run), np.ones_like(run)], axis=1) for run in right]


def p_values(*, trials: int, samples: int, seeds: tuple[int, int] = (3, 3), gain: float = 0.0, sd: float = SD) -> Any:
    """Returns the p-values of trials with two groups of the same recipe; `gain` is added to the accuracy of the second."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(trials):
        difficulty = 0.05 + 0.9 * random.beta(2.7, 0.3, samples)
        first = simulated_runs(random, difficulty, seeds=seeds[0])
        found.append(compare_counts(first, simulated_runs(random, difficulty, seeds=seeds[1], gain=gain, sd=sd)).p)
    return np.array(found)


@pytest.mark.slow
def test_few_differences_of_equal_recipes_are_significant() -> None:
    found = p_values(trials=1000, samples=10_000)
    assert (found < 0.01).mean() <= 0.015
    assert 0.02 <= (found < 0.05).mean() <= 0.06, "not too careful either"
    assert (p_values(trials=1000, samples=10_000, gain=0.03) < 0.05).mean() > 0.75


@pytest.mark.parametrize(("seeds", "sd"), [((3, 3), SD), ((2, 4), SD), ((1, 3), SD), ((3, 3), 0.0), ((5, 5), 4 * SD)])
def test_few_differences_of_equal_recipes_are_significant_in_small(seeds: tuple[int, int], sd: float) -> None:
    found = p_values(trials=300, samples=500, seeds=seeds, sd=sd)
    assert (found < 0.05).mean() <= 0.07
    assert (found < 0.01).mean() <= 0.02


def test_large_differences_are_found() -> None:
    found = p_values(trials=50, samples=2000, gain=0.05)
    assert (found < 0.05).mean() > 0.8


def test_other_test_samples_are_covered() -> None:
    random = np.random.default_rng(0)
    over_seeds, over_both = [], []
    for _ in range(200):  # equal over all samples, but each good at some of them; seeds hardly matter
        groups = [simulated_runs(random, random.choice([0.05, 0.95], 200), seeds=3, sd=0.0) for _ in range(2)]
        over_both.append(compare_counts(*groups).p)
        over_seeds.append(compare_values(*([float(run[:, 0].mean()) for run in group] for group in groups)).p)
    assert np.mean(np.array(over_both) < 0.05) <= 0.07
    assert np.mean(np.array(over_seeds) < 0.05) > 0.3


def test_the_mean_of_the_contributions_is_the_metric() -> None:
    counts = entity_counts(0)
    assert contributions(counts).mean() == pytest.approx(float(f1_score(counts.sum(0))))
    spread = contributions(counts).std() / np.sqrt(len(counts))
    random = np.random.default_rng(0)
    drawn = [f1_score(counts[random.integers(0, len(counts), len(counts))].sum(0)) for _ in range(2000)]
    assert spread == pytest.approx(np.std(drawn), rel=0.06)


def test_values_are_compared_as_scipy_does() -> None:
    first, second = [0.91, 0.92, 0.9], [0.93, 0.95, 0.94, 0.96]
    ours, theirs = compare_values(first, second), stats.ttest_ind(second, first, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours[:4] == pytest.approx((0.035, interval.low, interval.high, theirs.pvalue))
    assert ours.covers == "seeds"


def test_one_seed_varies_as_those_of_the_other_group() -> None:
    ours, theirs = compare_values([0.9], [0.93, 0.95, 0.94]), stats.ttest_ind([0.93, 0.95, 0.94], [0.9])  # pooled variance
    assert ours.p == pytest.approx(theirs.pvalue)
    assert compare_values([0.93, 0.95, 0.94], [0.9]).p == pytest.approx(theirs.pvalue)


def test_equal_values_are_equal() -> None:
    assert compare_values([0.5, 0.5], [0.5]) == (0.0, 0.0, 0.0, 1.0, "seeds")
    assert compare_values([0.5, 0.5], [0.75]).p == 0.0
    counts = entity_counts(4)
    assert compare_counts([counts] * 2, [counts] * 2) == (0.0, 0.0, 0.0, 1.0, "seeds, samples")


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = [0.91, 0.92, 0.9]
    assert mean_interval(values) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))
    assert mean_interval([0.9]) is None
    assert t_test(1.0, [(0.0, 2)], covers="seeds").p == 0.0


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="1 and 1 seeds cannot be compared: one group must have two or more"):
        compare_values([0.5], [0.5])
    with pytest.raises(ValueError, match="399, 400 samples cannot be compared"):
        compare_counts([entity_counts(0)], [entity_counts(0)[1:]] * 2)
