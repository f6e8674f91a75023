from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from arclight.metrics.calibration import Bin, calibrate, calibration_of
from arclight.metrics.records import ClassPrediction


def test_error_equals_torchmetrics() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(2000)
    correct = random.random(2000) < confidence**2
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct), n_bins=10, norm="l1")
    assert calibration_of(confidence, correct).error == pytest.approx(float(theirs), abs=1e-6)


def test_bins_equal_manual_computation() -> None:
    samples = [("a", 0.95), ("a", 0.95), ("b", 1.0), ("a", 0.25), ("a", None)]
    found = calibrate([ClassPrediction(index, "a", predicted, sure) for index, (predicted, sure) in enumerate(samples)])
    assert found is not None
    assert found.bins == [Bin(1, 0.25, 1.0), Bin(3, pytest.approx(2.9 / 3), pytest.approx(2 / 3))]
    assert found.error == pytest.approx((0.75 + 0.9) / 4)
    assert found.num == 4


def test_no_confidence_means_no_calibration() -> None:
    assert calibrate([]) is None
    assert calibrate([ClassPrediction(0, "a", "a", None)]) is None
