"""Files written atomically, so that readers see the old content or all of the new one; small JSON files read with care."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_DIGITS = 300  # of an integer in a JSON file
PART = ".part"  # suffix of a file that is being written


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Context manager that yields a new, empty file beside `path` and then renames it to `path`; an error removes it.

    Its name is random and the file is created by this call, so that no file or link that somebody has put there is written to.
    A link at `path` is replaced, its target stays.

    Raises:
        OSError: when the disk refuses, or `path` is a device, a pipe or a directory; what is there stays.
    """
    require_regular(path)
    part = create_part(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def require_regular(path: Path) -> None:
    """Raises OSError where `path`, or what a link there leads to, is a directory, a device or a pipe."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def create_part(path: Path) -> Path:
    """Returns the path of a new, empty file in the directory of `path`."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PART}")
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    return part


def parts_of(path: Path) -> list[Path]:
    """Returns the unfinished files of `path`: of a process that writes it now, or was killed while it did."""
    return [part for part in path.parent.glob(f"{glob.escape(path.name)}.*{PART}") if part.is_symlink() or part.is_file()]


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes text as UTF-8, a lone surrogate as its escape, which JSON reads back, or bytes; raises as `replacement`."""
    with replacement(path) as part:
        part.write_bytes(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


def read_file(path: Path) -> str:
    """Returns the text of a regular file: opening a pipe would block, reading a device would not end.

    Raises:
        OSError: when it cannot be read, or is something else than a file or a link to one.
        ValueError: when it is not UTF-8.
    """
    require_regular(path)
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one when the file is missing, damaged or holds something else."""
    try:
        content = json.loads(read_file(path), parse_int=whole)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def whole(digits: str) -> int | float:
    """Returns a whole number of a JSON file (`parse_int`); infinite where it is larger than any score or count."""
    return int(digits) if len(digits) < MAX_DIGITS else math.inf
