"""Small files: written atomically, so that readers see the old content or all of the new one; JSON read with care."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

MAX_DIGITS = 300  # of an integer in a JSON file


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


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one when the file is missing, damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=whole)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def whole(digits: str) -> int | float:
    """Returns a whole number of a JSON file (`parse_int`); infinite where it is larger than any score or count."""
    return int(digits) if len(digits) < MAX_DIGITS else math.inf
