"""Writes small files atomically: readers see the old content or all of the new one."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes `data` (text as UTF-8) to `path` through a temporary file beside it, which an error removes.

    Raises:
        OSError: when the disk refuses; the old content stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # processes may write the same file at once
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
