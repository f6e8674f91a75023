"""Sums over micro-batches, and times of the device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest
import torch

from arclight.callbacks.step_timing import PHASES, DeviceClock, Window


class Clips(NamedTuple):
    """Two clips of three and five frames, padded to five."""

    video: torch.Tensor
    unit_counts: dict[str, int]
    num_positions: int


def test_a_window_adds_up_what_batches_offer() -> None:
    window = Window()
    for _ in range(2):
        window.add(Clips(torch.zeros(2, 5), {"frames": 8}, 10), {"data_wait": 1.0, "optimizer": 2.0})
    assert (window.micro_batches, window.samples, window.units, window.work) == (2, 4, {"frames": 16}, {"samples": 4})
    assert window.padding == pytest.approx(0.2)
    assert window.seconds == {"data_wait": 2.0, "forward_backward": 0.0, "optimizer": 4.0, "logging": 0.0}
    assert window.total_s == 6.0


def test_batches_without_units_have_no_padding() -> None:
    window = Window()
    window.add(torch.zeros(3, 2), {})
    assert (window.samples, window.units, window.padding) == (3, {}, 0.0)


class Event:
    """Records the number of events before it, as milliseconds."""

    clock: Iterator[int] = count()

    def __init__(self, enable_timing: bool) -> None:
        self.recorded = 0

    def record(self) -> None:
        self.recorded = next(self.clock)

    def elapsed_time(self, other: Any) -> float:
        return float(other.recorded - self.recorded)


def test_the_device_clock_reads_the_last_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = DeviceClock()
    for _ in range(2):  # the second step drops the first
        for phase in PHASES:
            clock.mark(phase)
    clock.read()
    assert clock.num_steps == 1
    assert clock.seconds == {"data_wait": 0.0, "forward_backward": 0.001, "optimizer": 0.001, "logging": 0.001}
    clock.mark("logging")  # what callbacks after the log add belongs to no step
    clock.read()
    assert clock.num_steps == 1
