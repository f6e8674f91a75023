from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from arclight.metrics.bootstrap import compare, count, interval, resample, score
from arclight.metrics.prediction_file import ImagePrediction, SentencePrediction


def made_up(num_samples: int, shares: tuple[float, float], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whether two models were right on the same samples, as counts; they share half of their luck."""
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


def test_f1_of_one_prediction_a_sample_is_accuracy() -> None:
    assert score(np.array([[3, 4, 4], [0, 0, 0], [2, 3, 5]])).tolist() == [0.75, 0.0, 0.5]


def test_a_seed_is_a_seed() -> None:
    counts = entity_counts(0)
    assert interval(counts) == interval(counts)
    assert interval(counts) != interval(counts, seed=1)


def test_resampled_sums_are_of_as_many_samples() -> None:
    sums = resample(np.array([[1, 1], [0, 1], [0, 1]]), num_resamples=50, seed=0)
    assert sums.shape == (50, 2)
    assert set(sums[:, 1]) == {3}


def test_the_interval_of_an_accuracy_is_that_of_scipy() -> None:
    counts, _ = made_up(500, (0.8, 0.8), seed=1)
    theirs = stats.bootstrap((counts[:, 0],), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0))
    assert interval(counts) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_the_interval_of_an_f1_is_that_of_drawing_sentences_one_by_one() -> None:
    counts = entity_counts(2)
    random = np.random.default_rng(0)
    drawn = [score(counts[random.integers(0, len(counts), len(counts))].sum(0)) for _ in range(5000)]
    assert interval(counts) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)


@pytest.mark.parametrize("shares", [(0.8, 0.8), (0.78, 0.82), (0.7, 0.8)])
def test_the_p_value_is_that_of_scipys_paired_bootstrap_and_near_its_permutation_test(shares: tuple[float, float]) -> None:
    first, second = made_up(600, shares, seed=3)
    pair = (first[:, 0], second[:, 0])
    ours = compare(first, second)

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


def test_two_that_are_the_same() -> None:
    counts = entity_counts(4)
    assert compare(counts, counts) == (0.0, 0.0, 0.0, 1.0)


def test_unequal_tests_are_not_paired() -> None:
    with pytest.raises(ValueError, match="400 and 399 samples cannot be paired"):
        compare(entity_counts(0), entity_counts(0)[1:])


def test_counts_of_images() -> None:
    said = [("cat", "cat"), ("cat", "dog"), ("dog", "dog")]
    counts = count([ImagePrediction(index, true, predicted, 0.5) for index, (true, predicted) in enumerate(said)])
    assert {name: value.sum(0).tolist() for name, value in counts.items()} == {
        "accuracy": [2, 3, 3],
        "f1/cat": [1, 1, 2],
        "f1/dog": [1, 2, 1],
    }


def test_counts_of_sentences() -> None:
    one = SentencePrediction(0, ("B-PER", "I-PER", "O"), ("B-PER", "O", "B-LOC"), (0.5, 0.5, None))
    two = SentencePrediction(1, ("B-LOC",), ("B-LOC",), (0.5,))
    counts = count([one, two])
    assert {name: value.tolist() for name, value in counts.items()} == {
        "f1": [[0, 2, 1], [1, 1, 1]],
        "accuracy": [[1, 3, 3], [1, 1, 1]],
        "f1/LOC": [[0, 1, 0], [1, 1, 1]],
        "f1/PER": [[0, 1, 1], [0, 0, 0]],
    }
    assert count([]) == {}
    with pytest.raises(ValueError, match="images and sentences"):
        count([one, ImagePrediction(1, "a", "b", 0.5)])
