"""Which folder a run lives in: a new one, or that of the run it goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from arclight.config.compose import RunConfig, in_multirun
from arclight.config.differences import differences
from arclight.config.locations import alternatives, find_run
from arclight.distributed.environment import Launch, is_main_process
from arclight.errors import InputError
from arclight.runs.run_directory import discard_unless_trained, explain_write_errors, read_config, read_launch_id, read_status

LOCK = ".lock"
PATIENCE_S = 0.5  # another start may look, for a moment, whether somebody trains there
NAMELESS = ("", "none")  # launches that nothing tells from others; torchrun without --rdzv-id is named "none"


def resolve_run_dir(run_config: RunConfig, launch: Launch) -> RunConfig:
    """The run with the folder that it lives in: that of the run it goes on with, else a new one, claimed.

    A run that was started again by what watches over it (torchrun, SLURM) goes on with what it had begun.

    Raises:
        InputError: when the run to go on with is not there, is finished, is running, or had another config.
    """
    wanted = run_config.folder
    earlier = begun_by(launch, run_config) or find_earlier(run_config, resume_of(launch, run_config))
    if earlier is None:
        return replace(run_config, folder=create_run_dir(wanted))
    if earlier.resolve() != wanted.resolve() and wanted.is_dir():
        wanted.rmdir()  # Hydra made it
        if in_multirun():  # its table looks there
            wanted.symlink_to(os.path.relpath(earlier.resolve(), wanted.parent.resolve()))
    return replace(run_config, folder=earlier)


def begun_by(launch: Launch, run_config: RunConfig) -> Path | None:
    """The folder in which this launch has begun this run before; None when it has not, or nothing tells.

    SLURM counts how often it has started a job. torchrun does not count a node that comes or goes, and a node that comes back
    counts from 0; there the name that all nodes were given tells, if they were given one.
    """
    if launch.kind != "torchrun" and not launch.restart_count:
        return None
    if in_multirun():
        return run_config.folder  # Hydra gives each run of a grid one that no other has
    if launch.run_id in NAMELESS:
        return None
    same = [
        folder
        for folder in same_runs(run_config)
        if read_launch_id(folder) == launch.run_id and read_status(folder) != "finished"
    ]
    return newest(same)


def resume_of(launch: Launch, run_config: RunConfig) -> str:
    """Which run to go on with: the user's word, or after a restart that has no name to find its folder by, "auto"."""
    is_restart = launch.restart_count > 0 and launch.run_id in NAMELESS
    return "auto" if is_restart and run_config.resume == "none" else run_config.resume


def find_earlier(run_config: RunConfig, resume: str) -> Path | None:
    """The folder of the run to go on with; None for a new run. In a grid, "auto" finds finished runs of other grids, too."""
    if resume == "none":
        return None
    if resume == "auto":
        able = [folder for folder in same_runs(run_config) if not is_locked(folder)]
        if not in_multirun():
            return newest(folder for folder in able if read_status(folder) != "finished")
        wanted = run_config.folder
        if wanted in able:
            return wanted
        others = [folder for folder in able if folder.parent != wanted.parent]  # the rest of this grid are runs of their own
        return newest(folder for folder in others if folder.name == wanted.name) or newest(others)
    folder = find_run(resume)
    if changed := differences(read_config(folder), run_config.settings):
        if not run_config.resume_with_changes:
            lines = "".join(f"\n  {key}: {before!r} -> {now!r}" for key, (before, now) in changed.items())
            raise InputError(
                f"resume={resume}: that run had another config; resume_with_changes=true goes on with the new one:{lines}"
            )
    elif read_status(folder) == "finished":
        raise InputError(
            f"resume={resume}: that run is finished; train it further with trainer.max_epochs=... resume_with_changes=true"
        )
    return folder


def same_runs(run_config: RunConfig) -> list[Path]:
    """The folders around that of a run whose config gives the same results."""
    around = run_config.folder.parent
    known = {file.parent for file in [*around.glob("*/config.yaml"), *around.parent.glob("*/*/config.yaml")]}
    return [folder for folder in known if not differences(read_config(folder), run_config.settings)]


def newest(folders: Iterable[Path]) -> Path | None:
    """The one whose run began last; None of none."""
    return max(folders, key=lambda folder: (folder / "config.yaml").stat().st_mtime, default=None)


def create_run_dir(wanted: Path) -> Path:
    """Makes the run folder and marks it as taken: of two runs started in the same second each gets its own.

    Raises:
        InputError: when the disk does not take it.
    """
    for folder in alternatives(wanted):
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                (folder / "overrides.txt").touch(exist_ok=False)
            except FileExistsError:
                continue
            return folder
    raise AssertionError("there is always a next name")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in this folder.

    Raises:
        InputError: when one does already.
    """
    if not is_main_process():
        yield
        return
    lock = FileLock(folder / LOCK)
    with explain_write_errors(folder / LOCK):
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            raise InputError(f"{folder} is in use by a run that still goes on; wait for it, or end it first") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def discard(folder: Path) -> None:
    """Removes the folder of a run that a mistake stopped before its first checkpoint, unless another run is in it."""
    if not is_locked(folder):
        discard_unless_trained(folder)


def is_locked(folder: Path) -> bool:
    """Whether a process trains in this folder now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
