from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from arclight.metrics.calibration import Bin, calibrate, summarise
from arclight.metrics.prediction_file import ImagePrediction, SentencePrediction


def test_the_error_is_that_of_torchmetrics() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(2000)
    right = random.random(2000) < confidence**2
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(right), n_bins=10, norm="l1")
    assert summarise(confidence, right).error == pytest.approx(float(theirs), abs=1e-6)


def test_bins_by_hand() -> None:
    images = [("a", 0.95), ("a", 0.95), ("b", 1.0), ("a", 0.25), ("a", None)]
    found = calibrate([ImagePrediction(index, "a", said, sure) for index, (said, sure) in enumerate(images)])
    assert found is not None
    assert found.bins == [Bin(1, 0.25, 1.0), Bin(3, pytest.approx(2.9 / 3), pytest.approx(2 / 3))]
    assert found.error == pytest.approx((0.75 + 0.9) / 4)
    assert found.num == 4


def test_words_count_one_by_one() -> None:
    found = calibrate([SentencePrediction(0, ("O", "B-X", "O"), ("O", "O", "O"), (0.5, 0.75, None))])
    assert found is not None
    assert (found.num, found.confidence, found.right) == (2, 0.625, 0.5)


def test_nothing_to_calibrate() -> None:
    assert calibrate([]) is None
    assert calibrate([ImagePrediction(0, "a", "a", None)]) is None
