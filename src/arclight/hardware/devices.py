"""Decisions about accelerator, devices and nodes, and how the global batch is divided over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError
from arclight.hardware.decision import Decision, unknown_value, user_count, user_decision, user_value
from arclight.hardware.hardware_info import HardwareInfo

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
MAX_PROCESSES_PER_CORE = 8
ALL = (-1, "-1")


def choose_accelerator(hardware_info: HardwareInfo, requested: Mapping[str, Any]) -> Decision:
    """Chooses CUDA (ROCm's devices have this name in torch) before MPS before the CPU."""
    value, gpus = user_value(requested, "accelerator"), hardware_info.gpus
    if value is not None and value not in ACCELERATORS:
        raise unknown_value("trainer.accelerator", value, "an accelerator", ACCELERATORS)
    if (value == "cuda" and not gpus) or (value == "gpu" and not gpus and not hardware_info.has_mps):
        reason = f" ({'; '.join(hardware_info.problems)})" if hardware_info.problems else ""
        raise InputError(
            f"trainer.accelerator={value}: torch finds no GPU on this machine{reason}. Try: trainer=cpu",
            key="trainer.accelerator",
        )
    if value == "mps" and not hardware_info.has_mps:
        raise InputError(
            "trainer.accelerator=mps: torch finds no Apple GPU on this machine. Try: trainer=cpu", key="trainer.accelerator"
        )
    if value == "gpu":
        return user_decision("cuda" if gpus else "mps")
    if value is not None:
        return user_decision(value)
    if gpus:
        return Decision("cuda", f"{len(gpus)} x {' and '.join(sorted({gpu.name for gpu in gpus}))}")
    if hardware_info.has_mps:
        return Decision("mps", "Apple GPU")
    return Decision("cpu", f"no GPU found; {hardware_info.num_cores} cores")


def choose_devices(hardware_info: HardwareInfo, accelerator: str, requested: Mapping[str, Any]) -> Decision:
    """Chooses the processes on this node: as many as the launcher started; else one per GPU; else one that uses all cores."""
    value, launch = user_value(requested, "devices"), hardware_info.launch
    if value in ALL:
        value = None
    if value is not None:
        check_devices(hardware_info, accelerator, value)
    if launch.fixes_processes:
        count = launch.local_world_size
        if value is not None and count_devices(value) != count:
            raise InputError(
                f"trainer.devices={value}, but {launch.kind} has started {count} processes on this node; "
                f"leave trainer.devices at auto, or let {launch.kind} start {count_devices(value)}",
                key="trainer.devices",
            )
        check_devices(hardware_info, accelerator, count)
        return user_decision(value) if value is not None else Decision(count, f"started by {launch.name} on this node")
    if value is not None:
        return user_decision(value)
    if accelerator == "cuda":
        return Decision(len(hardware_info.gpus), "all GPUs" if len(hardware_info.gpus) > 1 else "one GPU")
    if accelerator == "cpu":
        return Decision(1, f"one process that uses all {hardware_info.num_cores} cores")
    return Decision(1, "one device")


def check_devices(hardware_info: HardwareInfo, accelerator: str, devices: Any) -> None:
    """Raises InputError when there are fewer devices, or no device with an index."""
    count, indices, setting = count_devices(devices), device_indices(devices), f"trainer.devices={devices}"
    num_gpus, launch = len(hardware_info.gpus), hardware_info.launch
    if count < 1:
        raise InputError(f"{setting} must be 1 or more, or auto", key="trainer.devices")
    if accelerator == "cpu":
        most = MAX_PROCESSES_PER_CORE * hardware_info.num_cores
        if isinstance(devices, list | tuple) or "," in str(devices):
            raise InputError(f"{setting}: CPU cores have no indices; give the number of processes", key="trainer.devices")
        if count > most:
            raise InputError(
                f"{setting}: too many processes for {hardware_info.num_cores} cores; "
                f"at most {MAX_PROCESSES_PER_CORE} per core, {most} here",
                key="trainer.devices",
            )
    elif accelerator == "mps" and count > 1:
        raise InputError(f"{setting}: there is one Apple GPU. Try: trainer.devices=1", key="trainer.devices")
    elif accelerator == "cuda" and count > num_gpus and launch.fixes_processes:
        raise InputError(
            f"{launch.kind} has started {count} processes on this node, and this one sees {num_gpus} of its GPUs; "
            f"start {num_gpus}, or let each process see all of them (SLURM: --gpus-per-node in place of --gpus-per-task)"
        )
    elif accelerator == "cuda" and count > num_gpus:
        raise InputError(f"{setting}: this machine has {num_gpus} GPUs; use 1 to {num_gpus}", key="trainer.devices")
    elif accelerator == "cuda" and indices and (len(set(indices)) < count or not set(indices) <= set(range(num_gpus))):
        raise InputError(
            f"{setting}: GPUs of this machine have the indices 0 to {num_gpus - 1}; name each at most once",
            key="trainer.devices",
        )


def choose_num_nodes(hardware_info: HardwareInfo, requested: Mapping[str, Any]) -> Decision:
    """Chooses as many nodes as the launcher has started processes on."""
    launch = hardware_info.launch
    if launch.fixes_processes and launch.local_world_size * launch.num_nodes != launch.world_size:
        raise InputError(
            f"{launch.kind} has started {launch.world_size} processes on {launch.num_nodes} nodes, "
            f"{launch.local_world_size} of them on this one; start the same number on each"
        )
    value = user_count(requested, "num_nodes", group="trainer")
    if value is None:
        return Decision(launch.num_nodes, "this machine only" if launch.num_nodes == 1 else f"from {launch.name}")
    if launch.kind != "none" and value != launch.num_nodes:
        raise InputError(
            f"trainer.num_nodes={value}, but {launch.kind} has started this run on {launch.num_nodes}; "
            f"leave trainer.num_nodes at auto, or let {launch.kind} start {value}",
            key="trainer.num_nodes",
        )
    return user_decision(value)


def gpu_indices(accelerator: str, devices: Any) -> list[int]:
    """Returns the indices of the GPUs that `devices` selects; none on other accelerators."""
    return device_indices(devices) or list(range(count_devices(devices))) if accelerator == "cuda" else []


def count_devices(devices: Any) -> int:
    """Returns the number of devices in Lightning's `devices`: a number, a list of indices, or "0,1"; else InputError."""
    if indices := device_indices(devices):
        return len(indices)
    try:
        return int(str(devices).strip())
    except ValueError:
        raise InputError(
            f"trainer.devices={devices} is neither a number, a list of indices nor auto", key="trainer.devices"
        ) from None


def device_indices(devices: Any) -> list[int]:
    """Returns the indices in a list or "0,1", none for a number; raises InputError for an index that is not a whole number."""
    if not isinstance(devices, list | tuple) and "," not in str(devices):
        return []
    parts = devices if isinstance(devices, list | tuple) else str(devices).split(",")
    indices = [str(part).strip() for part in parts if str(part).strip()]
    if not all(index.isdigit() for index in indices):
        raise InputError(f"trainer.devices={devices} is neither a number, a list of indices nor auto", key="trainer.devices")
    return [int(index) for index in indices]


def accumulation_steps(batch_size: Any, world_size: int, max_per_device: Any = None, requested: Any = None) -> int:
    """Returns the fewest equal micro-batches per optimizer step of at most `max_per_device` samples; else `requested`, if any.

    The only place that checks that `data.batch_size` is divisible. Values that are not whole numbers of 1 or more count as
    None: the checks of arguments report them.

    Raises:
        InputError: when the global batch is not divisible by the processes and micro-batches.
    """
    given = (batch_size, max_per_device, requested)
    size, limit, steps = (value if isinstance(value, int) and value > 0 else None for value in given)
    if size is None:
        return steps or 1
    if size % world_size:
        lower = size // world_size * world_size
        sizes = " or ".join(str(other) for other in (lower, lower + world_size) if other)
        raise InputError(
            f"data.batch_size={size} is not divisible by {world_size} processes; nearest sizes: {sizes}", key="data.batch_size"
        )
    per_process = size // world_size
    needed = next(n for n in range(1, per_process + 1) if per_process % n == 0 and per_process // n <= (limit or per_process))
    if needed == 1 and steps and per_process % steps:
        raise InputError(
            f"data.batch_size={size} is not divisible by {world_size} processes times "
            f"trainer.accumulate_grad_batches={steps}; leave the latter out: data.max_batch_per_device sets it",
            key="data.batch_size",
        )
    return needed if needed > 1 else steps or 1
