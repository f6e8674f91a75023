"""Collective calls of the processes of a run, once torch.distributed is initialized; one process answers for itself."""

from __future__ import annotations

from typing import Any

from torch import distributed


def gather_objects(value: Any) -> list[Any]:
    """Returns the plain values of all processes by rank; each of them must call this."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
