"""Reads the `.wandb` file of a run: records in the layout of LevelDB's log.

Source: https://github.com/google/leveldb/blob/main/doc/log_format.md; W&B writes a header of its own first.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes; no piece of a record lies across the end of one
HEADER = 7  # bytes of W&B before the first piece, and of LevelDB (checksum, length, kind) before each
FULL, FIRST, LAST = 1, 2, 4  # kinds of pieces
POLL_S = 0.02


def records(path: Path, *, only_last: bool = False) -> Iterator[Any]:
    """Yields W&B's `Record`s in order, up to the first incomplete one.

    Args:
        path: of the file.
        only_last: whether to read only its last 32 to 64 KiB.

    Raises:
        OSError: when it cannot be read.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated

    for content in contents(path, only_last=only_last):
        try:
            yield Record.FromString(content)
        except DecodeError:
            return


def contents(path: Path, *, only_last: bool) -> Iterator[bytes]:
    """Yields the content of each record, joined from its pieces; after a kill the file ends within one."""
    with path.open("rb") as file:
        num_blocks = file.seek(0, 2) // BLOCK
        begin = max(0, num_blocks - 1) * BLOCK if only_last else 0
        file.seek(begin)
        log = file.read()
    place = 0 if begin else HEADER
    parts: list[bytes] | None = None  # None until a record begins
    while place + HEADER <= len(log):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", log, place + 4)
        place += HEADER + length
        if place > len(log):
            return
        if kind in (FULL, FIRST):
            parts = []
        if parts is not None:
            parts.append(log[place - length : place])
            if kind in (FULL, LAST):
                yield b"".join(parts)
                parts = None


def has_end(path: Path, timeout_s: float) -> bool:
    """Returns whether the file holds the end of its run, which W&B's process may write shortly after `finish` returns.

    W&B writes the end last, and nothing at all after a failed write, which it does not report.

    Args:
        path: of the file; one that cannot be read has no end.
        timeout_s: to wait for it.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            if any(record.WhichOneof("record_type") == "exit" for record in records(path, only_last=True)):
                return True
        except OSError:
            pass
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
