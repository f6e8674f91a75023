"""Moments of a run, told from the files in its folder: waited for, to stop it there, and read off afterwards."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.drills.runs import STEPS_PER_EPOCH, Drill, Process, family, rows

AIMS = ("start-up", "in a step", "in a checkpoint write", "in validation", "in the epoch turn-over")
LOOK_S = 0.0005  # between two looks
FAMILY_S = 0.25  # between two times that the processes of the run are listed


class Watch:
    """A run since it was started: what its files say now that they did not say then."""

    def __init__(self, run: Drill) -> None:
        self.run = run
        self.checkpoints = run.runs[0] / "checkpoints" if run.runs else None
        self.before = self._marks()

    def _marks(self) -> dict[str, int]:
        if self.checkpoints is None:
            self.checkpoints = next(self.run.folder.glob("outputs/*/*/checkpoints"), None)
        marks = {}
        for file in () if self.checkpoints is None else ("last.ckpt", "last.ckpt.part", "best.ckpt", "best.ckpt.part"):
            try:
                marks[file] = (self.checkpoints / file).stat().st_mtime_ns
            except OSError:
                continue
        return marks

    def new(self) -> set[str]:
        """Which of the files are there that were not, or were others."""
        return {name for name, mark in self._marks().items() if self.before.get(name) != mark}

    def position(self) -> tuple[int, int]:
        """The last step, and the last step with a validation behind it, as metrics.csv tells."""
        known = rows(self.checkpoints.parent) if self.checkpoints else []
        trained = [int(row["step"]) for row in known if row.get("train/loss")]
        validated = [int(row["step"]) + 1 for row in known if any(row[key] for key in row if key.startswith("val/"))]
        return max(trained, default=0), max(validated, default=0)

    def saved_step(self) -> int:
        """That a run would go on from."""
        if self.checkpoints is None or not (self.checkpoints / "last.ckpt").exists():
            return 0
        return int(torch.load(self.checkpoints / "last.ckpt", weights_only=True, mmap=True)["global_step"])

    def seen(self) -> str:
        """Where the run was when it was stopped."""
        new = self.new()
        if any(name.endswith(".part") for name in new):
            return "in a checkpoint write"
        trained, validated = self.position()
        if not new and not (trained > self.saved_step()):
            return "start-up"
        if trained and trained % STEPS_PER_EPOCH == 0:
            if validated < trained:
                return "in validation" if "best.ckpt" not in new or self.saved_step() < trained else "in the epoch turn-over"
            if self.saved_step() <= trained:
                return "in the epoch turn-over"
        return "in a step"


def wait_for(
    aim: str, process: Process, watch: Watch, random_moments: random.Random, start_s: float, longest_s: float
) -> tuple[bool, list[int]]:
    """Waits until the run is there.

    Args:
        aim: one of AIMS.
        process: of the run.
        watch: of the run.
        random_moments: where in such a moment it is stopped, and in which of several.
        start_s: that a run takes to its first step.
        longest_s: after which the wait is given up.

    Returns:
        Whether it came there, and its processes.
    """
    began, listed, pids = time.monotonic(), 0.0, [process.pid]
    start_s = random_moments.uniform(0.1, 0.9) * start_s
    reached = comes_to(aim, watch, random_moments)
    while process.poll() is None and time.monotonic() - began < longest_s:
        if time.monotonic() - listed > FAMILY_S:
            pids, listed = family(process), time.monotonic()
        if time.monotonic() - began > start_s if aim == "start-up" else next(reached):
            return process.poll() is None, pids
        time.sleep(LOOK_S)
    return False, pids


def comes_to(aim: str, watch: Watch, random_moments: random.Random) -> Iterator[bool]:
    """At each look, whether the run is there."""
    nth, (seen_trained, seen_last) = random_moments.randint(1, 3), watch.position()
    later_s, at = random_moments.uniform(0.0, 0.15), 0.0
    has_part = False
    for look in itertools.count():
        if at:
            yield time.monotonic() >= at
            continue
        new = watch.new()
        if aim == "in a checkpoint write":
            part = bool(watch.checkpoints) and Path(watch.checkpoints, "last.ckpt.part").exists()
            nth -= part and not has_part and "last.ckpt.part" in new
            has_part = part
            yield nth <= 0
        elif aim == "in the epoch turn-over":
            validated = watch.position()[1] if look % 20 == 0 and new else seen_last
            if "best.ckpt.part" in new or "best.ckpt" in new or validated != seen_last:
                at = time.monotonic() + later_s / 5
            yield False
        elif aim == "in a step":
            mark = watch._marks().get("last.ckpt", 0) if "last.ckpt" in new else 0
            nth -= bool(mark) and mark != seen_last
            seen_last = mark or seen_last
            at = time.monotonic() + later_s if nth <= 0 else 0.0
            yield False
        elif aim == "in validation":
            if look % 5 == 0 and new:
                trained, validated = watch.position()
                if trained % STEPS_PER_EPOCH == 0 and validated < trained != seen_trained:
                    at = time.monotonic() + later_s / 3
            yield False
        else:
            yield False
