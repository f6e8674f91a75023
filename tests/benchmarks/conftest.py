"""Fixtures of the tests of benchmarks/."""

from __future__ import annotations

import pytest

from arclight.hardware import peak_measurement


@pytest.fixture
def small_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the peaks of the device on small matrices, in a moment."""
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})
    monkeypatch.setattr(peak_measurement, "BLOCK_S", 0.01)
