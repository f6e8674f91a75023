"""Memory of this machine and this process: what is free, the peak, and errors when it is exhausted."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from arclight.errors import InputError, first_line


@contextmanager
def report_out_of_memory() -> Iterator[None]:
    """Context manager that turns an out-of-memory error of a training step into an InputError that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error).partition(" GPU ")[0].rstrip(". ")  # without torch's own advice
        raise InputError(
            f"a training step does not fit the device's memory ({reason}). Try: data.max_batch_per_device=N, which computes N "
            "samples at a time without changing the batch (half of it, then a quarter); these need less memory, too: "
            "precision=bf16, callbacks=gradient_checkpointing, a smaller model, strategy=fsdp on several GPUs"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether torch failed to get memory from a device or the system."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in message for words in ("out of memory", "can't allocate", "alloc_failed"))
    )


def free_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that this process may still allocate: free memory, or what its control group's limit leaves."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no such file, or "max"
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(counts.get("inactive_file", 0)))  # file pages count as used, but are reclaimed
    return max(0, free)


def free_device_bytes(device: torch.device) -> int | None:
    """Returns the free bytes of a GPU's own memory; None for a device that shares the machine's memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def peak_bytes(device: torch.device) -> int:
    """Returns the peak of allocated memory: the GPU's, else this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
