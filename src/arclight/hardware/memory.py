"""Memory of this machine and this process: what is free, what is held, the most that was held; what is told when it ends."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from arclight.errors import InputError, first_line

WAYS_OUT = (
    "less memory is taken by precision=bf16, by model.gradient_checkpointing=true where the model has it, by a smaller model, "
    "and by strategy=fsdp on several GPUs"
)


@contextmanager
def report_out_of_memory() -> Iterator[None]:
    """Inside, a training step that the device's memory does not hold becomes an InputError with the ways out."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"the device's memory does not hold a training step ({without_advice(error)}); data.max_batch_per_device=N takes N "
            "samples at once, without changing the batch; try half of the batch, then a quarter; "
            f"besides, {WAYS_OUT}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch asked a device or the system for memory and got none."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in ("out of memory", "can't allocate", "alloc_failed"))
    )


def without_advice(error: BaseException) -> str:
    """What the error says, without the advice that torch adds."""
    return first_line(error).partition(" GPU ")[0].rstrip(". ")


def free_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has free, or what is left of this control group's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no such file, or "max"
        limit, held = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, limit - held + int(counts.get("inactive_file", 0)))  # file pages count as held, yet give way
    return max(0, free)


def free_device_bytes(device: torch.device) -> int | None:
    """Bytes of its own that a GPU has free; None of a device that shares the machine's memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def resident_bytes() -> int:
    """What this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def reset_peak(device: torch.device) -> None:
    """Makes `peak_bytes` count from here, where the system can do that; elsewhere it counts from the start of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark VmHWM


def peak_bytes(device: torch.device) -> int:
    """The most that was held: the GPU's memory, else this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
