"""Moments of a run, recognized by the files in its directory: to wait for one, and to tell afterwards which one it was."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.drills.runs import STEPS_PER_EPOCH, Drill, Process, family, rows

AIMS = ("start-up", "in a step", "in a checkpoint write", "in validation", "in the epoch turn-over")
POLL_S = 0.0005  # between two polls
FAMILY_S = 0.25  # between two listings of the run's processes


class Watch:
    """Watches the files of a run for changes since it was started."""

    def __init__(self, run: Drill) -> None:
        self.run = run
        self.checkpoints = run.runs[0] / "checkpoints" if run.runs else None
        self.before = self._marks()

    def _marks(self) -> dict[str, int]:
        if self.checkpoints is None:
            self.checkpoints = next(self.run.folder.glob("outputs/*/*/checkpoints"), None)
        marks = {}
        for file in () if self.checkpoints is None else ("last.ckpt", "best.ckpt"):
            # a file that is being written has a random name: last.ckpt.0123456789abcdef.part
            for name, path in ((file, self.checkpoints / file), (f"{file}.part", self.part_of(file))):
                try:
                    marks[name] = path.stat().st_mtime_ns
                except OSError:
                    continue
        return marks

    def part_of(self, file: str) -> Path:
        """Returns the path of a checkpoint that is being written."""
        assert self.checkpoints is not None
        return next(self.checkpoints.glob(f"{file}.*.part"), self.checkpoints / f"{file}.part")

    def new(self) -> set[str]:
        """Returns the names of files that are new or were replaced."""
        return {name for name, mark in self._marks().items() if self.before.get(name) != mark}

    def position(self) -> tuple[int, int]:
        """Returns the last step and the last validated step in metrics.csv."""
        known = rows(self.checkpoints.parent) if self.checkpoints else []
        trained = [int(row["step"]) for row in known if row.get("train/loss")]
        validated = [int(row["step"]) + 1 for row in known if any(row[key] for key in row if key.startswith("val/"))]
        return max(trained, default=0), max(validated, default=0)

    def saved_step(self) -> int:
        """Returns the step in last.ckpt, from which the run would resume; 0 without one."""
        if self.checkpoints is None or not (self.checkpoints / "last.ckpt").exists():
            return 0
        return int(torch.load(self.checkpoints / "last.ckpt", weights_only=True, mmap=True)["global_step"])

    def moment(self) -> str:
        """Returns the moment at which the run was stopped."""
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
    aim: str, process: Process, watch: Watch, random_moments: random.Random, start_s: float, timeout_s: float
) -> tuple[bool, list[int]]:
    """Waits until the run reaches a moment.

    Args:
        aim: one of AIMS.
        process: the run's.
        watch: the run's.
        random_moments: draws the occurrence of the moment and the time within it.
        start_s: seconds to the first step of a run.
        timeout_s: limit of the wait.

    Returns:
        Whether it was reached, and the run's process ids.
    """
    began, listed, pids = time.monotonic(), 0.0, [process.pid]
    start_s = random_moments.uniform(0.1, 0.9) * start_s
    reached = is_at(aim, watch, random_moments)
    while process.poll() is None and time.monotonic() - began < timeout_s:
        if time.monotonic() - listed > FAMILY_S:
            pids, listed = family(process), time.monotonic()
        if time.monotonic() - began > start_s if aim == "start-up" else next(reached):
            return process.poll() is None, pids
        time.sleep(POLL_S)
    return False, pids


def is_at(aim: str, watch: Watch, random_moments: random.Random) -> Iterator[bool]:
    """Yields at each poll whether the run is at the moment."""
    nth, (seen_trained, seen_last) = random_moments.randint(1, 3), watch.position()
    later_s, at = random_moments.uniform(0.0, 0.15), 0.0
    has_part = False
    for poll in itertools.count():
        if at:
            yield time.monotonic() >= at
            continue
        new = watch.new()
        if aim == "in a checkpoint write":
            part = bool(watch.checkpoints) and watch.part_of("last.ckpt").exists()
            nth -= part and not has_part and "last.ckpt.part" in new
            has_part = part
            yield nth <= 0
        elif aim == "in the epoch turn-over":
            validated = watch.position()[1] if poll % 20 == 0 and new else seen_last
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
            if poll % 5 == 0 and new:
                trained, validated = watch.position()
                if trained % STEPS_PER_EPOCH == 0 and validated < trained != seen_trained:
                    at = time.monotonic() + later_s / 3
            yield False
        else:
            yield False
