from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from arclight.hardware import energy
from arclight.hardware.energy import EnergyMeter, total_joules

GPU = torch.device("cuda", 0)


class Counter:
    """NVML with one GPU whose counter moves by 5 J at each reading."""

    def __init__(self) -> None:
        self.millijoules = 1000
        self.asked: list[str] = []

    def nvmlInit(self) -> None:
        self.asked.append("init")

    def nvmlShutdown(self) -> None:
        self.asked.append("shutdown")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.millijoules += 5000
        return self.millijoules


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    made = Counter()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))
    return made


def test_the_counter_is_selected_by_uuid(counter: Counter) -> None:
    assert total_joules(GPU) == pytest.approx(6.0)
    assert counter.asked == ["init", "GPU-12-34", "shutdown"]


def test_two_readings_make_a_measurement(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    assert EnergyMeter(GPU).read() == pytest.approx(5.0)


def test_a_short_time_is_not_a_measurement(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    assert EnergyMeter(GPU).read() is None


def test_devices_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert total_joules(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert total_joules(GPU) is None
    assert EnergyMeter(GPU).read() is None


def test_a_restarted_counter_is_not_a_measurement(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    meter = EnergyMeter(GPU)
    counter.millijoules = -5000  # the driver was loaded again
    assert meter.read() is None
