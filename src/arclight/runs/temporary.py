"""Temporary directories that do not pile up: each start removes those of processes that were killed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, LOCK = "arclight-", ".lock"
YOUNG_S = 60  # a directory of this age may belong to a process that has not locked it yet


@contextmanager
def temporary_directory(name: str, parent: Path | None = None) -> Iterator[Path]:
    """Context manager that creates a directory and removes it at the end, and first those that killed processes left behind.

    Args:
        name: part of the directory's name.
        parent: directory for it; None for the system's temporary one.
    """
    top = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(top)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-", dir=top))
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire()
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(top: Path) -> None:
    """Removes this user's directories whose lock no process holds; empty ones have none."""
    for folder in top.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # another process may remove it, too
            status = folder.lstat()
            if folder.is_symlink() or status.st_uid != os.getuid() or time.time() - status.st_mtime < YOUNG_S:
                continue
            if not (folder / LOCK).exists():
                folder.rmdir()
                continue
            with FileLock(folder / LOCK, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
