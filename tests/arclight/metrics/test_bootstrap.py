from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from arclight.metrics.bootstrap import confidence_interval, f1_score, paired_test, resample


def random_counts(num_samples: int, shares: tuple[float, float], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns counts of two correlated models on the same samples."""
    random = np.random.default_rng(seed)
    luck = random.random((3, num_samples))
    rights = [np.where(luck[2] < 0.5, luck[0], luck[index]) < share for index, share in enumerate(shares)]
    ones = np.ones(num_samples, dtype=np.int64)
    first, second = (np.stack([right.astype(np.int64), ones, ones], axis=1) for right in rights)
    return first, second


def entity_counts(seed: int) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    true, predicted = random.integers(0, 4, (2, 400))
    return np.stack([np.minimum(true, predicted) * random.integers(0, 2, 400), predicted, true], axis=1)


def test_f1_equals_accuracy_with_one_label_per_sample() -> None:
    assert f1_score(np.array([[3, 4, 4], [0, 0, 0], [2, 3, 5]])).tolist() == [0.75, 0.0, 0.5]


def test_same_seed_gives_same_interval() -> None:
    counts = entity_counts(0)
    assert confidence_interval(counts) == confidence_interval(counts)
    assert confidence_interval(counts) != confidence_interval(counts, seed=1)


def test_resamples_have_the_original_number_of_samples() -> None:
    sums = resample(np.array([[1, 1], [0, 1], [0, 1]]), num_resamples=50, seed=0)
    assert sums.shape == (50, 2)
    assert set(sums[:, 1]) == {3}


def test_accuracy_interval_equals_scipy() -> None:
    counts, _ = random_counts(500, (0.8, 0.8), seed=1)
    theirs = stats.bootstrap((counts[:, 0],), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0))
    assert confidence_interval(counts) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_f1_interval_equals_drawing_samples_one_by_one() -> None:
    counts = entity_counts(2)
    random = np.random.default_rng(0)
    drawn = [f1_score(counts[random.integers(0, len(counts), len(counts))].sum(0)) for _ in range(5000)]
    assert confidence_interval(counts) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)


@pytest.mark.parametrize("shares", [(0.8, 0.8), (0.78, 0.82), (0.7, 0.8)])
def test_p_value_equals_scipy_paired_bootstrap_and_permutation_test(shares: tuple[float, float]) -> None:
    first, second = random_counts(600, shares, seed=3)
    pair = (first[:, 0], second[:, 0])
    ours = paired_test(first, second)

    def difference(one: Any, other: Any, axis: int = -1) -> Any:
        return np.mean(other, axis=axis) - np.mean(one, axis=axis)

    theirs = stats.bootstrap(pair, difference, paired=True, n_resamples=9999, method="percentile", rng=np.random.default_rng(0))
    below = np.mean(theirs.bootstrap_distribution <= 0)
    above = np.mean(theirs.bootstrap_distribution >= 0)
    assert ours.p == pytest.approx(min(1.0, 2 * min(below, above)), abs=0.03)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.006)
    flipped = stats.permutation_test(
        pair, difference, permutation_type="samples", vectorized=True, n_resamples=4999, rng=np.random.default_rng(0)
    )
    assert ours.p == pytest.approx(flipped.pvalue, abs=0.06)
    assert ours.value == pytest.approx(float(flipped.statistic))


def test_identical_models_have_p_value_1() -> None:
    counts = entity_counts(4)
    assert paired_test(counts, counts) == (0.0, 0.0, 0.0, 1.0, "samples")


def test_different_numbers_of_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="400 and 399 samples cannot be paired"):
        paired_test(entity_counts(0), entity_counts(0)[1:])
