"""Where the arithmetic runs and in how many processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError, nearest
from arclight.hardware.decision import Decision, granted, requested_value
from arclight.hardware.hardware_info import HardwareInfo

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
MAX_PROCESSES_PER_CORE = 8
ALL = (-1, "-1")


def choose_accelerator(hardware_info: HardwareInfo, requested: Mapping[str, Any]) -> Decision:
    """Where the arithmetic runs: a CUDA device before Apple's, before the CPU. ROCm's devices go by the name of CUDA."""
    wish = requested_value(requested, "accelerator")
    if wish is not None and wish not in ACCELERATORS:
        raise InputError(f"trainer.accelerator={wish} is no accelerator of Lightning. {nearest(str(wish), ACCELERATORS)}")
    if (wish == "cuda" and not hardware_info.gpus) or (wish == "gpu" and not hardware_info.gpus and not hardware_info.has_mps):
        because = f" ({'; '.join(hardware_info.problems)})" if hardware_info.problems else ""
        raise InputError(f"trainer.accelerator={wish}: this machine has no GPU that torch can use{because}; take trainer=cpu")
    if wish == "mps" and not hardware_info.has_mps:
        raise InputError("trainer.accelerator=mps: this machine has no Apple GPU that torch can use; take trainer=cpu")
    if wish == "gpu":
        return granted("cuda" if hardware_info.gpus else "mps")
    if wish is not None:
        return granted(wish)
    if hardware_info.gpus:
        names = sorted({gpu.name for gpu in hardware_info.gpus})
        return Decision("cuda", f"{len(hardware_info.gpus)} x {' and '.join(names)}")
    if hardware_info.has_mps:
        return Decision("mps", "Apple GPU")
    return Decision("cpu", f"no GPU here; {hardware_info.num_cores} cores")


def choose_devices(hardware_info: HardwareInfo, accelerator: str, requested: Mapping[str, Any]) -> Decision:
    """Processes on this node: as many as the launcher started; else one for each GPU; else one, whose threads use the cores."""
    wish = requested_value(requested, "devices")
    is_open = wish is None or wish in ALL
    launch = hardware_info.launch
    if not is_open:
        check_number(hardware_info, accelerator, wish)
    if launch.fixes_processes:
        count = launch.local_world_size
        if not is_open and count_devices(wish) != count:
            raise InputError(
                f"trainer.devices={wish}, but {launch.kind} has started {count} processes on this node; "
                f"leave trainer.devices at auto, or let {launch.kind} start {count_devices(wish)}"
            )
        check_number(hardware_info, accelerator, count)
        return granted(wish) if not is_open else Decision(count, f"{launch.kind} has started so many processes on this node")
    if not is_open:
        return granted(wish)
    if accelerator == "cuda":
        return Decision(len(hardware_info.gpus), "every GPU" if len(hardware_info.gpus) > 1 else "one GPU")
    if accelerator == "cpu":
        return Decision(1, f"one process, whose threads use the {hardware_info.num_cores} cores")
    return Decision(1, "one device")


def check_number(hardware_info: HardwareInfo, accelerator: str, devices: Any) -> None:
    """Raises InputError when there are not so many devices, or none of that index."""
    count = count_devices(devices)
    if count < 1:
        raise InputError(f"trainer.devices={devices} must be 1 or more, or auto")
    indices = indices_of(devices)
    num_gpus, launch = len(hardware_info.gpus), hardware_info.launch
    if accelerator == "cpu":
        if isinstance(devices, list | tuple) or "," in str(devices):
            raise InputError(f"trainer.devices={devices}: cores have no indices; give the number of processes")
        if count > MAX_PROCESSES_PER_CORE * hardware_info.num_cores:
            raise InputError(
                f"trainer.devices={devices}: {hardware_info.num_cores} cores would carry {count} processes; "
                f"take at most {MAX_PROCESSES_PER_CORE} for each core, {MAX_PROCESSES_PER_CORE * hardware_info.num_cores} here"
            )
    elif accelerator == "mps" and count > 1:
        raise InputError(f"trainer.devices={devices}: there is one Apple GPU; take trainer.devices=1")
    elif accelerator == "cuda" and count > num_gpus and launch.fixes_processes:
        raise InputError(
            f"{launch.kind} has started {count} processes on this node, and this one sees {num_gpus} of its GPUs; "
            f"start {num_gpus}, or let each process see all of them (SLURM: --gpus-per-node in place of --gpus-per-task)"
        )
    elif accelerator == "cuda" and count > num_gpus:
        raise InputError(f"trainer.devices={devices}: this machine has {num_gpus} GPUs; take 1 to {num_gpus}")
    elif accelerator == "cuda" and indices and (len(set(indices)) < count or not set(indices) <= set(range(num_gpus))):
        raise InputError(
            f"trainer.devices={devices}: the GPUs of this machine have the indices 0 to {num_gpus - 1}; name each at most once"
        )


def choose_num_nodes(hardware_info: HardwareInfo, requested: Mapping[str, Any]) -> Decision:
    """As many machines as the launcher has started processes on."""
    wish = requested_value(requested, "num_nodes")
    launch = hardware_info.launch
    if launch.fixes_processes and launch.local_world_size * launch.num_nodes != launch.world_size:
        raise InputError(
            f"{launch.kind} has started {launch.world_size} processes on {launch.num_nodes} nodes, "
            f"{launch.local_world_size} of them on this one; start the same number on each"
        )
    if wish is not None:
        if isinstance(wish, bool) or not isinstance(wish, int) or wish < 1:
            raise InputError(f"trainer.num_nodes={wish} must be a whole number of 1 or more, or auto")
        if launch.kind != "none" and wish != launch.num_nodes:
            raise InputError(
                f"trainer.num_nodes={wish}, but {launch.kind} has started this run on {launch.num_nodes}; "
                f"leave trainer.num_nodes at auto, or let {launch.kind} start {wish}"
            )
        return granted(wish)
    return Decision(launch.num_nodes, "this machine alone" if launch.kind == "none" else f"as {launch.kind} says")


def used_indices(accelerator: str, devices: Any) -> list[int]:
    """The indices of the GPUs that these devices stand for; none on other accelerators."""
    return indices_of(devices) or list(range(count_devices(devices))) if accelerator == "cuda" else []


def count_devices(devices: Any) -> int:
    """How many devices Lightning's `devices` setting asks for: a number, a list of indices, or "0,1".

    Raises:
        InputError: for anything else.
    """
    if indices := indices_of(devices):
        return len(indices)
    try:
        return int(str(devices).strip())
    except ValueError:
        raise InputError(f"trainer.devices={devices} is neither a number, a list of indices nor auto") from None


def indices_of(devices: Any) -> list[int]:
    """The indices that a list or "0,1" names; none of a number.

    Raises:
        InputError: when one of them is no whole number.
    """
    if isinstance(devices, list | tuple):
        named = [str(index).strip() for index in devices]
    elif "," in str(devices):
        named = [index.strip() for index in str(devices).split(",") if index.strip()]
    else:
        return []
    if not all(index.isdigit() for index in named):
        raise InputError(f"trainer.devices={devices} is neither a number, a list of indices nor auto")
    return [int(index) for index in named]
