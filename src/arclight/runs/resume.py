"""Resolves the run directory: a new one, or that of the run to resume. Locks it while a run trains there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from arclight.config.compose import RunConfig, in_multirun
from arclight.config.differences import differences
from arclight.config.locations import alternatives, find_run
from arclight.distributed.environment import Launch, is_main_process
from arclight.errors import InputError
from arclight.runs.run_directory import explain_write_errors, read_config, read_launch_id, read_status

LOCK = ".lock"
LOCK_TIMEOUT_S = 0.5  # another start may hold the lock for a moment, to see whether a run trains there
NEW_RUN_DIR_FILE = "ARCLIGHT_NEW_RUN_DIR_FILE"  # variable of the processes of a run
UNNAMED = ("", "none")  # ids of launches that cannot be distinguished; torchrun without --rdzv-id is named "none"


def resolve_run_dir(run_config: RunConfig, launch: Launch) -> RunConfig:
    """Returns the config with its run directory: that of the run to resume, else a new one, which is created.

    A run that torchrun or SLURM restarted resumes by itself. The config has a seed: see `with_seed`.

    Raises:
        InputError: when the run to resume does not exist, is finished, is running, or had another config.
    """
    requested = run_config.folder
    earlier = find_restarted(launch, run_config) or find_earlier(run_config, resume_mode(launch, run_config))
    if earlier is None:
        return replace(with_seed(run_config), folder=create_run_dir(requested))
    if earlier.resolve() != requested.resolve() and requested.is_dir():
        with suppress(OSError):  # it is not empty: another run that was started in the same second has it
            requested.rmdir()  # Hydra made it
        if in_multirun():  # the table of the multirun reads it
            requested.symlink_to(os.path.relpath(earlier.resolve(), requested.parent.resolve()))
        else:
            with suppress(OSError):
                requested.parent.rmdir()
    is_auto = run_config.resume == "auto"  # which trains other data in a new run
    return replace(with_seed(run_config, earlier), folder=earlier, new_folder=requested if is_auto else None)


def with_seed(run_config: RunConfig, earlier: Path | None = None) -> RunConfig:
    """Returns the config with a seed: for `seed=null`, that of the earlier run to resume, else a new one.

    `seed_is_drawn` in config.yaml marks such a run, which another start with `seed=null` may resume.
    """
    if "seed" not in run_config.settings or run_config.settings["seed"] is not None:
        return run_config
    seed = None if earlier is None else read_config(earlier).get("seed")
    drawn = seed if isinstance(seed, int) else secrets.randbelow(2**32)
    return replace(run_config, settings={**run_config.settings, "seed": drawn, "seed_is_drawn": True})


def find_restarted(launch: Launch, run_config: RunConfig) -> Path | None:
    """Returns the directory in which this launch has trained this run before; None when there is none.

    SLURM counts the restarts of a job. torchrun does not count a node that comes or goes, and a returning node counts from 0;
    there the launch's id identifies the run, if the user set one.
    """
    if launch.kind != "torchrun" and not launch.restart_count:
        return None
    if in_multirun():
        return run_config.folder  # unique to each run of a multirun
    if launch.run_id in UNNAMED:
        return None
    unfinished = (folder for folder in same_runs(run_config) if read_status(folder) != "finished")
    return newest(folder for folder in unfinished if read_launch_id(folder) == launch.run_id)


def resume_mode(launch: Launch, run_config: RunConfig) -> str:
    """Returns the user's `resume`, or "auto" after a restart without an id to find its directory by."""
    is_restart = launch.restart_count > 0 and launch.run_id in UNNAMED
    return "auto" if is_restart and run_config.resume == "none" else run_config.resume


def find_earlier(run_config: RunConfig, resume: str) -> Path | None:
    """Returns the directory of the run to resume; None for a new run.

    In a multirun, "auto" also finds finished runs of earlier multiruns, which are not trained again.
    """
    if resume == "none":
        return None
    if resume == "auto":
        same = same_runs(run_config)
        if not in_multirun():
            found = newest(folder for folder in same if read_status(folder) != "finished")
            if found is not None and is_locked(found):
                raise InputError(f"resume=auto: {in_use(found)}; to start another, leave resume=auto out")
            return found
        requested = run_config.folder
        unlocked = [folder for folder in same if not is_locked(folder)]
        if requested in unlocked:
            return requested
        # the data of a finished run is not loaded, so it cannot be compared
        root = run_config.settings["data"].get("root")
        unlocked = [folder for folder in unlocked if read_status(folder) != "finished" or root_of(folder) == root]
        others = [folder for folder in unlocked if folder.parent != requested.parent]  # not the other runs of this multirun
        return newest(folder for folder in others if folder.name == requested.name) or newest(others)
    folder = find_run(resume)
    if changed := differences(read_config(folder), run_config.settings):
        if not run_config.resume_with_changes:
            lines = "".join(f"\n  {key}: {before!r} -> {now!r}" for key, (before, now) in changed.items())
            raise InputError(
                f"resume={resume}: that run had another config; to resume it with the new one, add "
                f"resume_with_changes=true:{lines}"
            )
    elif read_status(folder) == "finished":
        raise InputError(
            f"resume={resume}: that run is finished; to train it further, set trainer.max_epochs=... resume_with_changes=true"
        )
    return folder


def root_of(folder: Path) -> Any:
    """Returns the directory of a run's data, by its config."""
    data = read_config(folder).get("data")
    return data.get("root") if isinstance(data, dict) else None


def same_runs(run_config: RunConfig) -> list[Path]:
    """Returns the run directories nearby whose config gives the same results."""
    parent = run_config.folder.parent
    known = {file.parent for file in [*parent.glob("*/config.yaml"), *parent.parent.glob("*/*/config.yaml")]}
    return [folder for folder in known if not differences(read_config(folder), run_config.settings)]


def newest(folders: Iterable[Path]) -> Path | None:
    """Returns the directory of the run that started last; None of none."""
    return max(folders, key=lambda folder: (folder / "config.yaml").stat().st_mtime, default=None)


def create_run_dir(requested: Path) -> Path:
    """Creates a run directory and returns it; two runs started in the same second each get their own.

    Raises:
        InputError: when the disk refuses.
    """
    for folder in alternatives(requested):
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                (folder / "overrides.txt").touch(exist_ok=False)
            except FileExistsError:
                continue
            return folder
    raise AssertionError("alternatives() is endless")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context manager that lets no other process train in this directory; raises InputError when one does already."""
    if not is_main_process():
        yield
        return
    lock = FileLock(folder / LOCK)
    with explain_write_errors(folder / LOCK):
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout:
            raise InputError(in_use(folder)) from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def in_use(folder: Path) -> str:
    """Returns the message for a directory in which a run trains."""
    return f"{folder} is in use by a run that is still training; wait for it or stop it"


def start_new_run(run_config: RunConfig) -> Path:
    """Creates and returns the directory of a new run in place of the one that `resume=auto` has found.

    Where a launcher has started this process, the file of NEW_RUN_DIR_FILE names the directory to it.
    """
    assert run_config.new_folder is not None
    if run_config.new_folder.is_symlink():  # to the other run, for the table of a multirun
        run_config.new_folder.unlink()
    folder = create_run_dir(run_config.new_folder)
    if file := os.environ.get(NEW_RUN_DIR_FILE):
        Path(file).write_text(str(folder), encoding="utf-8")
    return folder


def discard(folder: Path) -> None:
    """Removes a run directory without checkpoints, where no run trains: the error message says all that it holds."""
    if not is_locked(folder) and not any(folder.glob("checkpoints/*.ckpt")):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # holds another run
            folder.parent.rmdir()


def is_locked(folder: Path) -> bool:
    """Returns whether a process trains in this directory now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
