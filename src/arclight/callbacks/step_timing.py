"""Times of the phases of training steps, of the host and of the device, and what limits a run whose step takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from arclight.interfaces import num_positions, num_samples, unit_counts, work_units

# "logging" is all callbacks and loggers, and what Lightning does between the others
PHASES = ("data_wait", "forward_backward", "optimizer", "logging")
# From which fraction of a step's time a phase is worth a change, and the change.
THRESHOLDS = {
    "data_wait": (
        0.10,
        "waits for data",
        "raise hardware.workers if files are read, reduce data.augment if the data is in memory",
    ),
    "optimizer": (0.25, "spends in the optimizer", "raise data.batch_size, for fewer updates"),
    "logging": (0.10, "spends in callbacks and loggers", "raise trainer.log_every_n_steps, or use fewer of them"),
}
PADDING = 0.25  # of the positions in a batch
IDLE = 0.30  # of a GPU's time


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


def advise(fractions: Mapping[str, float], *, padding: float, is_gpu: bool) -> str:
    """Returns what takes most of the time that is not spent on learning, and the remedy.

    Args:
        fractions: of a step's time, 0 to 1, by phase: data_wait, forward_backward, optimizer, logging.
        padding: fraction of the positions in a batch that hold padding.
        is_gpu: whether forward_backward and optimizer are a device's own time, so that what is missing from 1 is idle time.
    """
    busy = fractions["forward_backward"] + fractions["optimizer"]
    found = [
        (fractions[phase] - threshold, f"training {waits} {fractions[phase]:.0%} of the time: {change}")
        for phase, (threshold, waits, change) in THRESHOLDS.items()
    ]
    found.append((padding - PADDING, f"{padding:.0%} of each batch is padding: try data.packing=buckets"))
    if is_gpu:
        remedy = "the host is too slow for it: raise data.batch_size, or use hardware.compile=true"
        found.append((1 - busy - IDLE, f"the GPU is idle for {1 - busy:.0%} of the time, {remedy}"))
    excess, line = max(found)
    if excess >= 0:
        return line
    fraction = fractions["forward_backward"]
    return f"training is bound by forward and backward, {fraction:.0%} of the time: try lower precision or a smaller model"
