"""What machine this is (`probe`) and what to do with it (`plan`): facts on one side, a pure function on the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arclight.errors import InputError

AMPERE = (8, 0)


@dataclass(frozen=True)
class Gpu:
    """One CUDA device; `capability` is its compute capability, such as (8, 0) for an A100."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """What there is. `num_cores` are those that this process may use; `has_fast_bf16_cpu` means instructions, not emulation."""

    num_cores: int
    memory_bytes: int
    has_fast_bf16_cpu: bool = False
    gpus: tuple[Gpu, ...] = ()
    has_mps: bool = False


@dataclass(frozen=True)
class Choice:
    """One setting and why; `is_wish` when the user set it and nothing was chosen."""

    value: Any
    reason: str
    is_wish: bool = False


def probe() -> Facts:
    """The machine that this process runs on; asks the drivers, starts nothing."""
    import psutil
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(Gpu(properties.name, properties.total_memory, (properties.major, properties.minor)))
    # newer than the oldest torch that is supported; without it the CPU counts as one that emulates
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return Facts(
        num_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        has_fast_bf16_cpu=any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16")),
        gpus=tuple(gpus),
        has_mps=torch.backends.mps.is_available(),
    )


def is_main_process() -> bool:
    """Whether this process speaks and writes for all processes of the run."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, cut to the container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def plan(facts: Facts, wishes: Mapping[str, Any]) -> dict[str, Choice]:
    """Accelerator, devices, precision and strategy, each with its reason; a wish other than "auto" is kept.

    Pure: every process of a run works it out again and gets the same.

    Raises:
        InputError: when a wish cannot be had on this machine.
    """
    accelerator = choose_accelerator(facts, wishes.get("accelerator", "auto"))
    devices = choose_devices(facts, accelerator.value, wishes.get("devices", "auto"))
    return {
        "accelerator": accelerator,
        "devices": devices,
        "precision": choose_precision(facts, accelerator.value, wishes.get("precision", "auto")),
        "strategy": choose_strategy(count_devices(devices.value) * int(wishes.get("num_nodes", 1)), wishes),
    }


def choose_accelerator(facts: Facts, wish: str) -> Choice:
    """Where the arithmetic runs: a CUDA device before Apple's, before the CPU."""
    if wish in ("gpu", "cuda") and not facts.gpus and not (wish == "gpu" and facts.has_mps):
        raise InputError(f"trainer.accelerator={wish}: this machine has no GPU that torch can use; take trainer=cpu")
    if wish == "mps" and not facts.has_mps:
        raise InputError("trainer.accelerator=mps: this machine has no Apple GPU that torch can use; take trainer=cpu")
    if wish != "auto":
        return Choice(wish, "as you said", is_wish=True)
    if facts.gpus:
        return Choice("cuda", f"{len(facts.gpus)} x {facts.gpus[0].name}")
    if facts.has_mps:
        return Choice("mps", "Apple GPU")
    return Choice("cpu", f"no GPU here; {facts.num_cores} cores")


def choose_devices(facts: Facts, accelerator: str, wish: Any) -> Choice:
    """How many: every GPU, one CPU process (torch's threads use its cores)."""
    num_gpus = len(facts.gpus)
    if accelerator in ("gpu", "cuda") and num_gpus:
        if wish in ("auto", -1, "-1"):
            return Choice(num_gpus, "every GPU")
        if count_devices(wish) > num_gpus:
            raise InputError(f"trainer.devices={wish}: this machine has {num_gpus} GPUs; take 1 to {num_gpus}")
    if wish in ("auto", -1, "-1"):
        return Choice(1, f"one process, whose threads use the {facts.num_cores} cores" if accelerator == "cpu" else "one GPU")
    if count_devices(wish) < 1:
        raise InputError(f"trainer.devices={wish} must be 1 or more, or auto")
    return Choice(wish, "as you said", is_wish=True)


def choose_precision(facts: Facts, accelerator: str, wish: Any) -> Choice:
    """The fastest that trains as well as fp32: bf16 where there are instructions for it, fp16 with a scaler on older GPUs."""
    if wish != "auto":
        return Choice(wish, "as you said", is_wish=True)
    if accelerator in ("gpu", "cuda") and facts.gpus:
        oldest = min(gpu.capability for gpu in facts.gpus)
        if oldest >= AMPERE:
            return Choice("bf16-mixed", f"compute capability {oldest[0]}.{oldest[1]} has bf16 tensor cores")
        if oldest >= (7, 0):
            return Choice("16-mixed", f"compute capability {oldest[0]}.{oldest[1]} has fp16 tensor cores and no bf16")
        return Choice("32-true", f"compute capability {oldest[0]}.{oldest[1]} has no tensor cores")
    if accelerator == "cpu" and facts.has_fast_bf16_cpu:
        return Choice("bf16-mixed", "this CPU has bf16 instructions")
    if accelerator == "cpu":
        return Choice("32-true", "this CPU emulates bf16, hundreds of times slower than fp32")
    return Choice("32-true", "exact everywhere")


def choose_strategy(world_size: int, wishes: Mapping[str, Any]) -> Choice:
    """As soon as there is more than one process: ddp."""
    wish = wishes.get("strategy", "auto")
    if wish != "auto":
        return Choice(wish, "as you said", is_wish=True)
    if world_size == 1:
        return Choice("auto", "one process")
    return Choice("ddp", f"{world_size} processes, each with the whole model")


def count_devices(devices: Any) -> int:
    """How many devices Lightning's `devices` setting asks for: a number, a list of indices, or "0,1".

    Raises:
        InputError: for anything else.
    """
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices).strip()
    if "," in text:
        return len([index for index in text.split(",") if index.strip()])
    try:
        return int(text)
    except ValueError:
        raise InputError(f"trainer.devices={devices} is neither a number, a list of indices nor auto") from None


def accumulation(batch_size: int, world_size: int, max_per_device: int | None) -> int:
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
