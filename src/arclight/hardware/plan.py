"""What to do with this machine: `plan`, a pure function from facts and wishes to choices with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError, nearest
from arclight.hardware.backend import (
    choose_channels_last,
    choose_compile,
    choose_cudnn_benchmark,
    choose_retain_heap,
    choose_threads,
    choose_workers,
)
from arclight.hardware.decision import Decision, granted, requested_value
from arclight.hardware.devices import choose_accelerator, choose_devices, choose_num_nodes, count_devices, used_indices
from arclight.hardware.hardware_info import HardwareInfo
from arclight.hardware.precision import choose_matmul_precision, choose_precision

FOR_SPEED = ("matmul_precision", "cudnn_benchmark", "channels_last", "compile", "retain_heap", "threads", "workers")
FOR_TRAINER = ("accelerator", "devices", "num_nodes", "precision", "strategy")
# Lightning's own names begin so; those of packages that register strategies are not known here
STRATEGIES = ("ddp", "fsdp", "deepspeed", "single_device", "single_tpu", "single_xla", "xla")
BYTES_PER_PARAMETER = 16  # fp32: weight, gradient and Adam's two moments
SHARE_FOR_STATES = 0.8  # of a GPU's memory; the rest is for activations


def plan(
    hardware_info: HardwareInfo,
    requested: Mapping[str, Any],
    num_parameters: int | None = None,
    *,
    has_fixed_shapes: bool = False,
    steps_per_epoch: int | None = None,
    num_parts: int = 1,
) -> dict[str, Decision]:
    """Every setting that depends on the machine, with its reason; a wish is kept, or told why it cannot be had.

    Pure: every process of a run works it out again and gets the same.

    Args:
        hardware_info: what there is.
        requested: the settings of `trainer` and `hardware` in one mapping; "auto", null and silence leave it to the plan.
        num_parameters: of the net, where it is known; decides whether its states fit one GPU.
        has_fixed_shapes: whether every batch has the same shape, as those of images do.
        steps_per_epoch: optimizer steps, where they are known.
        num_parts: that each process adds up to an optimizer step.

    Raises:
        InputError: when a wish cannot be had on this machine.
    """
    accelerator = choose_accelerator(hardware_info, requested)
    devices = choose_devices(hardware_info, accelerator.value, requested)
    num_nodes = choose_num_nodes(hardware_info, requested)
    num_local = count_devices(devices.value)
    indices = used_indices(accelerator.value, devices.value)
    gpus = tuple(hardware_info.gpus[index] for index in indices)
    world_size = hardware_info.launch.world_size if hardware_info.launch.fixes_processes else num_local * num_nodes.value
    strategy = choose_strategy(hardware_info, accelerator.value, indices, world_size, requested, num_parameters)
    precision = choose_precision(hardware_info, accelerator.value, gpus, requested, is_sharded=is_sharded(strategy.value))
    matmul = choose_matmul_precision(hardware_info, accelerator.value, gpus, requested, str(precision.value))
    check_sync_batchnorm(accelerator.value, requested)
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "precision": precision,
        "strategy": strategy,
        "matmul_precision": matmul,
        "cudnn_benchmark": choose_cudnn_benchmark(accelerator.value, gpus, requested, has_fixed_shapes),
        "channels_last": choose_channels_last(accelerator.value, gpus, requested, str(precision.value), matmul.value),
        "compile": choose_compile(
            hardware_info,
            accelerator.value,
            gpus,
            requested,
            has_fixed_shapes=has_fixed_shapes,
            num_steps=count_steps(steps_per_epoch, requested),
            num_processes=world_size,
            num_parts=num_parts,
        ),
        "retain_heap": choose_retain_heap(hardware_info, accelerator.value, requested),
        "threads": choose_threads(hardware_info, num_local, requested),
        "workers": choose_workers(hardware_info, num_local, requested),
    }


def count_steps(steps_per_epoch: int | None, requested: Mapping[str, Any]) -> int | None:
    """Optimizer steps of the whole run at most; None where that is not known."""
    epochs, steps = requested.get("max_epochs"), requested.get("max_steps")
    ends = [steps] if isinstance(steps, int) and steps >= 0 else []
    if isinstance(epochs, int) and epochs >= 0 and steps_per_epoch is not None:
        ends.append(epochs * steps_per_epoch)
    return min(ends, default=None)


def requested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a config asks of the hardware, as `plan` takes it; a config from before there was `hardware` asks less."""
    return {**settings["trainer"], **settings.get("hardware", {})}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Looks at the settings of `hardware` that are no wishes, and at their names.

    Raises:
        InputError: for a name that is not known, or a value out of its range.
    """
    known = (*FOR_SPEED, "timeout_s", "max_restarts")
    for name in settings:
        if name not in known:
            raise InputError(f"hardware.{name}: there is no such setting. {nearest(name, known)}")
    timeout_s, max_restarts = settings.get("timeout_s", 1), settings.get("max_restarts", 0)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise InputError(f"hardware.timeout_s={timeout_s} must be a number of seconds above 0")
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int) or max_restarts < 0:
        raise InputError(f"hardware.max_restarts={max_restarts} must be a whole number of 0 or more")


def for_trainer(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """The values of those choices that are arguments of Lightning's Trainer."""
    return {name: decisions[name].value for name in FOR_TRAINER}


def choose_strategy(
    hardware_info: HardwareInfo,
    accelerator: str,
    indices: list[int],
    world_size: int,
    requested: Mapping[str, Any],
    num_parameters: int | None,
) -> Decision:
    """One process: none. More: ddp, or fsdp when what the net needs while training does not fit one GPU."""
    wish = requested_value(requested, "strategy")
    if wish is not None:
        check_strategy(accelerator, wish)
        if world_size == 1 and wish in ("ddp", "ddp_find_unused_parameters_true"):
            # wrapped all the same, every gradient would be copied once more for nobody
            return Decision("auto", f"{wish} has nothing to share in one process", is_user_set=True)
        return granted(wish)
    needed = BYTES_PER_PARAMETER * (num_parameters or 0)
    has_room = not indices or needed <= SHARE_FOR_STATES * min(hardware_info.gpus[index].memory_bytes for index in indices)
    sizes = f"weights, gradients and Adam's moments are {needed / 1e9:.0f} GB"
    if world_size == 1:
        advice = "" if has_room else f"; {sizes}, which this GPU has not: more GPUs would share them"
        return Decision("auto", f"one process{advice}")
    if not has_room:
        return Decision(
            "fsdp", f"{sizes}, more than {SHARE_FOR_STATES:.0%} of a GPU's memory: {world_size} processes share them"
        )
    is_linked = len(indices) < 2 or any(set(link) <= set(indices) for link in hardware_info.peer_links)
    return Decision(
        "ddp",
        f"{world_size} processes, each with the whole model"
        + ("" if is_linked else "; the GPUs have no peer links, so gradients go through the host's memory"),
    )


def is_sharded(strategy: Any) -> bool:
    """Whether the strategy, a name or the settings of a `_target_`, spreads the net's weights over the processes."""
    if isinstance(strategy, Mapping):
        return str(strategy.get("_target_", "")).endswith(("ModelParallelStrategy", "FSDPStrategy"))
    return str(strategy).startswith("fsdp")


def check_strategy(accelerator: str, wish: Any) -> None:
    """Raises InputError for a name that Lightning does not know, or one that the accelerator cannot do."""
    name = str(wish)
    if accelerator == "mps" and (is_sharded(wish) or name.startswith(("ddp", "deepspeed"))):
        raise InputError(
            f"trainer.strategy={name}: there is one Apple GPU, and torch cannot talk between processes on it; "
            f"take strategy=auto, or trainer=cpu to try processes out"
        )
    if isinstance(wish, str) and not wish.startswith(STRATEGIES):
        raise InputError(f"trainer.strategy={wish} is no strategy of Lightning. {nearest(wish, ('auto', *STRATEGIES))}")


def check_sync_batchnorm(accelerator: str, requested: Mapping[str, Any]) -> None:
    """Raises InputError where torch has no batch norm over processes."""
    if requested.get("sync_batchnorm") and accelerator in ("cpu", "mps"):
        raise InputError(
            f"trainer.sync_batchnorm=true: torch has it for GPUs of CUDA only, and this run is on {accelerator}; "
            f"leave trainer.sync_batchnorm out, or take trainer=gpu"
        )
