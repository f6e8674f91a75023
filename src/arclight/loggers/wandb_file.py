"""What W&B has kept of a run on this disk: a `.wandb` file, records in the layout of LevelDB's log.

Source: https://github.com/google/leveldb/blob/main/doc/log_format.md; W&B puts a header of its own before it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes; no piece of a record lies across the end of one
HEADER = 7  # bytes of W&B before the first piece, and of LevelDB (checksum, length, kind) before each
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces
POLL_S = 0.02


def records(path: Path, *, only_last: bool = False) -> Iterator[Any]:
    """W&B's `Record`s in their order, as far as they are whole.

    Args:
        path: of the file.
        only_last: whether to read no more than its last 32 to 64 KiB.

    Raises:
        OSError: where it cannot be read.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made of a .proto

    for content in contents(path, only_last=only_last):
        try:
            yield Record.FromString(content)
        except DecodeError:
            return


def contents(path: Path, *, only_last: bool) -> Iterator[bytes]:
    """What each record holds, put together from its pieces; the file may end within one, as it does after a kill."""
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
        if kind in (WHOLE, FIRST):
            parts = []
        if parts is not None:
            parts.append(log[place - length : place])
            if kind in (WHOLE, LAST):
                yield b"".join(parts)
                parts = None


def has_end(path: Path, longest_s: float) -> bool:
    """Whether a run's end stands in its file, which W&B's process may write shortly after it has said that it is done.

    W&B writes the end last, and nothing at all after a write that has failed, of which it tells nobody.

    Args:
        path: of the file; one that cannot be read has no end.
        longest_s: to wait for it.
    """
    until = time.monotonic() + longest_s
    while True:
        try:
            if any(record.WhichOneof("record_type") == "exit" for record in records(path, only_last=True)):
                return True
        except OSError:
            pass
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
