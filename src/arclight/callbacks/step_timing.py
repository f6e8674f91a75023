"""Times of the phases of training steps: of the host, added up over batches, and of the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from arclight.interfaces import num_positions, num_samples, unit_counts, work_units

# "logging" is all callbacks and loggers, and what Lightning does between the others
PHASES = ("data_wait", "forward_backward", "optimizer", "logging")


def no_time() -> dict[str, float]:
    """Returns zero seconds for each phase."""
    return dict.fromkeys(PHASES, 0.0)


@dataclass
class Window:
    """Sums over some micro-batches on this process; `seconds` are those of each of PHASES, `work` what FLOPs depend on."""

    micro_batches: int = 0
    samples: int = 0
    units: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    positions: int = 0
    seconds: dict[str, float] = field(default_factory=no_time)

    @property
    def total_s(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    @property
    def padding(self) -> float:
        """The fraction of positions that hold padding."""
        return 1 - sum(self.units.values()) / self.positions if self.positions else 0.0

    def add(self, batch: Any, seconds: dict[str, float]) -> None:
        """Adds one micro-batch and the time since the one before."""
        self.micro_batches += 1
        self.samples += num_samples(batch)
        self.units.update(unit_counts(batch))
        self.work.update(work_units(batch))
        self.positions += num_positions(batch)
        for phase, value in seconds.items():
            self.seconds[phase] += value


class DeviceClock:
    """Times the phases on a GPU: those of the last step before each log, when the host has waited for it anyway."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.seconds = no_time()
        self._events: list[tuple[str, torch.cuda.Event]] = []

    def mark(self, phase: str) -> None:
        """Records that all work of this phase is queued; the first phase of a step drops the step before."""
        if phase == PHASES[0]:
            self._events.clear()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append((phase, event))

    def read(self) -> None:
        """Adds the times of the recorded step, which the device must have finished."""
        for (_, before), (phase, after) in pairwise(self._events):
            self.seconds[phase] += before.elapsed_time(after) / 1000
        self.num_steps += len(self._events) > 1
        self._events.clear()
