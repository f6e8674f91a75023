"""Messages between the server and its worker processes: a JSON header and the bytes of the inputs, over pipes.

A frame is the length of the header (4 bytes), the header, and as many bytes as its "sizes" add up to.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def pack(header: dict[str, Any], payloads: Sequence[bytes] = ()) -> bytes:
    """Returns a frame."""
    text = json.dumps({**header, "sizes": [len(payload) for payload in payloads]}).encode()
    return b"".join((LENGTH.pack(len(text)), text, *payloads))


def read_frame(pipe: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Returns the header and payloads of the next frame, waiting for it; None where the other side has closed the pipe."""
    if len(start := pipe.read(LENGTH.size)) < LENGTH.size:
        return None
    header = json.loads(pipe.read(*LENGTH.unpack(start)))
    return header, [pipe.read(size) for size in header.pop("sizes")]


async def receive(pipe: asyncio.StreamReader) -> dict[str, Any]:
    """Returns the header of the next frame; raises asyncio.IncompleteReadError where the worker has ended."""
    header: dict[str, Any] = json.loads(await pipe.readexactly(*LENGTH.unpack(await pipe.readexactly(LENGTH.size))))
    return header
