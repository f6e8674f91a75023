"""How the global batch is spread over processes and parts."""

from __future__ import annotations

from arclight.errors import InputError


def accumulation_steps(batch_size: int, world_size: int, max_per_device: int | None) -> int:
    """Parts that each process takes one after the other so that none is larger than `max_per_device`.

    The smallest number of parts whose size divides the global batch evenly over the processes.

    Raises:
        InputError: when the batch does not divide over the processes; names the nearest sizes that do.
    """
    if batch_size % world_size:
        lower = batch_size // world_size * world_size
        sizes = " or ".join(str(size) for size in (lower, lower + world_size) if size)
        raise InputError(
            f"data.batch_size={batch_size} does not divide over {world_size} processes; the nearest that do are {sizes}"
        )
    per_process = batch_size // world_size
    limit = max_per_device or per_process
    return next(parts for parts in range(1, per_process + 1) if per_process % parts == 0 and per_process // parts <= limit)
