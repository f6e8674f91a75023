"""Drills other than kills: broken loggers, full and read-only disks, and two runs that use the same directory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.drills.loggers import killed_with_every_logger
from tests.drills.moments import Watch, wait_for
from tests.drills.runs import STEPS_PER_EPOCH, Drill, Process, command_for, differences, end, results, rows
from tests.project.engine.loggers.test_factory import contents, history, records

Outcome = tuple[bool, str]  # whether it was as promised, and what happened


def all_of(folder: Path, task: str, whole: Drill, deadline: float) -> Iterator[dict[str, Any]]:
    """Runs every drill of this task; starts none after the deadline."""
    drills: dict[str, Callable[[Path, str, Drill], Outcome]] = {
        "outputs/ on a disk that is read-only": read_only,
        "W&B offline, killed twice: one id, steps unbroken": resumed_in_wandb,
        "every logger, killed repeatedly: each row of metrics.csv once": killed_with_every_logger,
        "two runs started in the same second": same_second,
        "one run resumed twice at once": twice_at_once,
        "a disk that fills up, at each write of a run (tmpfs)": small_disks,
        "a disk that fills up, where only loggers write (tmpfs)": full_stores,
    }
    for number, (name, drill) in enumerate(drills.items()):
        if time.monotonic() < deadline:
            place = folder / f"{task}-other-{number}-{os.getpid()}"
            place.mkdir(parents=True)
            as_promised, outcome = drill(place, task, whole)
            yield {"name": f"{name}; {task}", "as_promised": as_promised, "outcome": outcome}


def kill_at(run: Drill, aim: str, seed: int, *more: str) -> None:
    """Starts the run and kills all its processes at the moment."""
    process, watch = run.start("resume=auto", *more), Watch(run)
    reached, pids = wait_for(aim, process, watch, random.Random(seed), 5.0, 120.0)
    if reached:
        end(process, signal.SIGKILL, pids)
    process.wait()


def resumed_in_wandb(place: Path, task: str, whole: Drill) -> Outcome:
    run = Drill(place / "run", command_for(task, 1, logger="[csv,wandb]"))
    for seed, aim in enumerate(("in a step", "in validation")):
        kill_at(run, aim, seed)
    status = run.finish("resume=auto")
    found = [records(folder) for folder in sorted(run.runs[0].glob("wandb/offline-run-*"))]
    ids = {started["run_id"] for part in found for started in contents(part, "run")}
    steps: dict[int, int] = {}
    own: list[int] = []
    rises = True
    for part in found:  # a later start replaces what an earlier one logged beyond its checkpoint
        before = own[-1] if own else -1
        for row in history(part):
            rises = rises and row["_step"] > before
            before = row["_step"]
            own.append(row["_step"])
            if "train/loss" in row:
                steps[int(row["trainer/global_step"])] = row["_step"]
    expected = [int(row["step"]) for row in rows(whole.runs[0]) if row.get("train/loss")]
    good = status == 0 and len(ids) == 1 and sorted(steps) == expected and not differences(whole, run)
    outcome = (
        f"{len(found)} starts, {len(ids)} id, train/loss at steps {', '.join(map(str, sorted(steps)))}; W&B's own step count "
    )
    return good, outcome + ("rises within and from start to start" if rises else "starts again below earlier steps")


def same_second(place: Path, task: str, whole: Drill) -> Outcome:
    # both are given the same name, so that the drill does not depend on the clock
    run = Drill(
        place / "runs", [*command_for(task, 1), "trainer.max_epochs=1", "hydra.run.dir=outputs/drill/2026-01-31_12-00-00"]
    )
    processes = [run.start() for _ in range(2)]
    statuses = [process.wait() for process in processes]
    found = [{k: v for k, v in results(one).items() if k.startswith(("val/", "test/"))} for one in run.runs]
    names = [one.name for one in run.runs]
    good = statuses == [0, 0] and len(found) == 2 and found[0] == found[1] != {}
    return good, f"exit statuses {statuses}; directories {' and '.join(names)}; equal scores"


def twice_at_once(place: Path, task: str, whole: Drill) -> Outcome:
    run = Drill(place / "run", whole.overrides)
    kill_at(run, "in a step", 0)
    second = Drill(place / "second", whole.overrides)
    twins = [drill.start(f"resume={run.runs[0]}") for drill in (run, second)]
    statuses = sorted(process.wait() for process in twins)
    log = run.log_file.read_text() + second.log_file.read_text()
    is_refused = "is in use by" in log
    good = statuses == [0, 2] and is_refused and not differences(whole, run)
    return (
        good,
        f"exit statuses {statuses}; {'the second reports that the run is in use' if is_refused else 'nothing reported'}",
    )


def mount(place: Path, options: str) -> bool:
    place.mkdir(exist_ok=True)
    return not subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True).returncode


def fill(disk: Path, run: Drill, process: Process, step: int) -> None:
    """Fills the disk once the run has validated after this step."""
    watch = Watch(run)
    while process.poll() is None and watch.position()[1] < step:
        watch.new()  # finds the run directory
        time.sleep(0.001)
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        for size in (2**16, 2**12, 1):
            with suppress(OSError):
                while True:
                    filler.write(b"x" * size)


def small_disks(place: Path, task: str, whole: Drill) -> Outcome:
    """Disks too small from the start, and disks that something else fills up; each run resumes once there is room."""
    needed = sum(file.stat().st_size for file in whole.folder.rglob("*") if file.is_file())
    cases: dict[str, tuple[int, int | None]] = {
        "8 KB": (8192, None),
        "40 KB": (40960, None),
        "40% of what it takes": (int(0.4 * needed), None),
        "97% of what it takes": (int(0.97 * needed), None),
        "full from the first epoch's end on": (4 * needed, STEPS_PER_EPOCH),
        "full from the last epoch's end on": (4 * needed, steps_of(whole)),
    }
    good, lines = True, []
    for number, (name, (size, filled_at)) in enumerate(cases.items()):
        disk = place / f"disk-{number}"
        if not mount(disk, f"size={size}"):
            return False, "only root can mount a small disk: not done"
        try:
            run = Drill(disk, whole.overrides)
            process = run.start("resume=auto")
            if filled_at:
                fill(disk, run, process, filled_at)
            status, log = process.wait(), run.log_file.read_text()
            unwritten = [line.split(" could not be")[0] for line in log.splitlines() if " could not be " in line]
            unwritten += ["metrics.csv"] * ("csv failed (" in log)
            unwritten += ["the disk, before the run started"] * ("free some space" in log)
            missing = sorted({line.split(": ")[-1].rsplit("/", 1)[-1] for line in unwritten})
            (disk / "filler").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            again = run.finish("resume=auto") if not run.has_finished else 0
            # rows that the disk refused are missing; a last checkpoint that it refused is the one before
            excused = {"curve"} if "csv failed (" in log else set()
            different = [one for one in differences(whole, run) if one not in excused]
            fine = (
                again == 0 and not different and "Traceback" not in log and bool(missing) and (status == 0 or "error: " in log)
            )
            good = good and fine
            end_of_it = "then equal" if not again and not different else f"then NOT equal (exit status {again}, {different})"
            lines.append(f"{name}: exit status {status}, reported: {', '.join(missing) or 'nothing'}; {end_of_it}")
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    return good, "; ".join(lines)


def full_stores(place: Path, task: str, whole: Drill) -> Outcome:
    """The loggers' files are on a disk that is full after the first epoch; the run directory is not."""
    disk, run_dir = place / "disk", "outputs/drill/stores"
    if not mount(disk, "size=64m"):
        return False, "only root can mount a small disk: not done"
    try:
        more = ["trainer.log_every_n_steps=1", f"hydra.run.dir={run_dir}", f"logger.mlflow.uri=sqlite:///{disk}/mlflow.db"]
        run = Drill(place / "run", [*command_for(task, 1, logger="[csv,tensorboard,wandb,mlflow]"), *more])
        for name in ("tensorboard", "wandb"):
            (disk / name).mkdir()
            (run.folder / run_dir).mkdir(parents=True, exist_ok=True)
            (run.folder / run_dir / name).symlink_to(disk / name)
        process = run.start()
        fill(disk, run, process, STEPS_PER_EPOCH)
        status, log = process.wait(), run.log_file.read_text()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)  # W&B's process may still run
    signs = {
        "tensorboard": "tensorboard failed (",
        "mlflow": "mlflow failed (",
        "W&B": "W&B did not write the whole run",
    }
    reported = [name for name, sign in signs.items() if sign in log]
    different = [one for one in differences(whole, run) if one != "curve"]  # it has every step here
    good = status == 0 and not different and reported == list(signs) and "Traceback" not in log
    return good, f"exit status {status}, reported: {', '.join(reported) or 'nothing'}; {'NOT equal' if different else 'equal'}"


def steps_of(run: Drill) -> int:
    """Returns the optimizer steps of a finished run."""
    return int(results(run.runs[0])["steps"])


def read_only(place: Path, task: str, whole: Drill) -> Outcome:
    disk = place / "disk"
    if not mount(disk, "size=1m,ro"):
        return False, "only root can mount a disk: not done"
    try:
        run = Drill(disk, whole.overrides)
        status, log = run.finish(), run.log_file.read_text()
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    line = next((line for line in log.splitlines() if line.startswith("error: ")), log[-200:])
    return status == 2 and "Traceback" not in log, f"exit status {status}: {line}"
