"""Which folder a run lives in: a new one, or that of the run it goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from arclight.config import Composed, alternatives, find_run, in_grid
from arclight.errors import InputError
from arclight.hardware import is_main_process
from arclight.run_folder import settings_of, status_of

LOCK = ".lock"
# Settings that say where and how fast a run is made, not what comes of it: it may go on under others
WITHOUT_EFFECT = (
    *("hardware.", "tracker.", "checkpoint.", "name", "data.root", "data.max_batch_per_device"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar"),
)


def settle(composed: Composed, *, is_restart: bool) -> Composed:
    """The run with the folder that it lives in: that of the run it goes on with, else a new one, claimed.

    A run that was started again by what watches over it (torchrun, SLURM) goes on with what it had begun.

    Raises:
        InputError: when the run to go on with is not there, is finished, is running, or had another config.
    """
    wanted = composed.folder
    earlier = find_earlier(composed, "auto" if is_restart and composed.resume == "none" else composed.resume)
    if earlier is None:
        return replace(composed, folder=claim(wanted))
    if earlier.resolve() != wanted.resolve() and wanted.is_dir():
        wanted.rmdir()  # Hydra made it
        if in_grid():  # its table looks there
            wanted.symlink_to(os.path.relpath(earlier.resolve(), wanted.parent.resolve()))
    return replace(composed, folder=earlier)


def find_earlier(composed: Composed, resume: str) -> Path | None:
    """The folder of the run to go on with; None for a new run. In a grid, "auto" finds finished runs, too."""
    if resume == "none":
        return None
    if resume == "auto":
        around = composed.folder.parent
        known = {file.parent for file in [*around.glob("*/config.yaml"), *around.parent.glob("*/*/config.yaml")]}
        same = [folder for folder in known if not differences(settings_of(folder), composed.settings)]
        able = [folder for folder in same if not is_locked(folder) and (in_grid() or status_of(folder) != "finished")]
        return max(able, key=lambda folder: (folder / "config.yaml").stat().st_mtime, default=None)
    folder = find_run(resume)
    if changed := differences(settings_of(folder), composed.settings):
        if not composed.resume_with_changes:
            lines = "".join(f"\n  {key}: {before!r} -> {now!r}" for key, (before, now) in changed.items())
            raise InputError(
                f"resume={resume}: that run had another config; resume_with_changes=true goes on with the new one:{lines}"
            )
    elif status_of(folder) == "finished":
        raise InputError(
            f"resume={resume}: that run is finished; train it further with trainer.max_epochs=... resume_with_changes=true"
        )
    return folder


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings by which two runs give different results, by key, each with both values; None where there is none."""
    flat = [dict(flatten(settings)) for settings in (before, now)]
    keys = sorted({*flat[0], *flat[1]})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key) and not key.startswith(WITHOUT_EFFECT)
    }


def flatten(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by dotted key."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, settings


def claim(wanted: Path) -> Path:
    """Makes the run folder and marks it as taken: of two runs started in the same second each gets its own."""
    for folder in alternatives(wanted):
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
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{folder} is in use by a run that still goes on; wait for it, or end it first") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


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
