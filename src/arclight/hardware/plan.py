"""The hardware plan: `plan` is a pure function from hardware info and requested settings to decisions with reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from arclight.errors import InputError, closest, nearest
from arclight.hardware.backend import (
    choose_channels_last,
    choose_compile,
    choose_cudnn_benchmark,
    choose_retain_heap,
    choose_threads,
    choose_workers,
)
from arclight.hardware.decision import Decision, Target, unknown_value, user_decision, user_value
from arclight.hardware.devices import choose_accelerator, choose_devices, choose_num_nodes, count_devices, gpu_indices
from arclight.hardware.hardware_info import HardwareInfo
from arclight.hardware.precision import choose_matmul_precision, choose_precision

FOR_SPEED = ("matmul_precision", "cudnn_benchmark", "channels_last", "compile", "retain_heap", "threads", "workers")
FOR_TRAINER = ("accelerator", "devices", "num_nodes", "precision", "strategy")
# prefixes of Lightning's own names; packages can register others
STRATEGIES = ("ddp", "fsdp", "deepspeed", "single_device", "single_tpu", "single_xla", "xla")
STARTS_PROCESSES = ("spawn", "fork", "notebook")  # ends of the names of those that start processes from inside fit
BYTES_PER_PARAMETER = 16  # fp32: weight, gradient and Adam's two moments
STATE_FRACTION = 0.8  # of a GPU's memory; the rest is for activations


def plan(
    hardware_info: HardwareInfo,
    requested: Mapping[str, Any],
    num_parameters: int | None = None,
    *,
    has_fixed_shapes: bool = False,
    steps_per_epoch: int | None = None,
    accumulation_steps: int = 1,
) -> dict[str, Decision]:
    """Returns every setting that depends on the hardware, with its reason. Every process of a run computes the same plan.

    Args:
        hardware_info: of this machine.
        requested: the settings of `trainer` and `hardware` in one mapping; "auto", null and missing keys are chosen here.
        num_parameters: of the net, if known; decides whether its training state fits one GPU.
        has_fixed_shapes: whether all batches have the same shape, as images do.
        steps_per_epoch: optimizer steps, if known.
        accumulation_steps: micro-batches per optimizer step on each process.

    Raises:
        InputError: when this machine does not support a requested setting.
    """
    accelerator = choose_accelerator(hardware_info, requested)
    devices = choose_devices(hardware_info, accelerator.value, requested)
    num_nodes = choose_num_nodes(hardware_info, requested)
    num_local = count_devices(devices.value)
    indices = gpu_indices(accelerator.value, devices.value)
    target = Target(
        hardware_info=hardware_info,
        requested=requested,
        accelerator=accelerator.value,
        gpus=tuple(hardware_info.gpus[index] for index in indices),
        num_local=num_local,
        world_size=hardware_info.launch.world_size if hardware_info.launch.fixes_processes else num_local * num_nodes.value,
        has_fixed_shapes=has_fixed_shapes,
        num_steps=count_steps(steps_per_epoch, requested),
        accumulation_steps=accumulation_steps,
    )
    strategy = choose_strategy(target, indices, num_parameters)
    precision = choose_precision(target, is_sharded=is_sharded(strategy.value))
    matmul_precision = choose_matmul_precision(target, str(precision.value))
    if requested.get("sync_batchnorm") and target.accelerator in ("cpu", "mps"):
        raise InputError(
            f"trainer.sync_batchnorm=true needs NVIDIA GPUs, and this run is on {target.accelerator}; "
            "leave trainer.sync_batchnorm out, or use trainer=gpu",
            key="trainer.sync_batchnorm",
        )
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "precision": precision,
        "strategy": strategy,
        "matmul_precision": matmul_precision,
        "cudnn_benchmark": choose_cudnn_benchmark(target),
        "channels_last": choose_channels_last(
            target, str(precision.value), matmul_precision.value, is_sharded=is_sharded(strategy.value)
        ),
        "compile": choose_compile(target),
        "retain_heap": choose_retain_heap(target),
        "threads": choose_threads(target),
        "workers": choose_workers(target),
    }


def count_steps(steps_per_epoch: int | None, requested: Mapping[str, Any]) -> int | None:
    """Returns the optimizer steps of the whole run at most, None if unknown."""
    epochs, steps = requested.get("max_epochs"), requested.get("max_steps")
    ends = [steps] if isinstance(steps, int) and steps >= 0 else []
    if isinstance(epochs, int) and epochs >= 0 and steps_per_epoch is not None:
        ends.append(epochs * steps_per_epoch)
    return min(ends, default=None)


def requested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a config that `plan` takes; old configs have no `hardware` group."""
    return {**settings["trainer"], **(settings.get("hardware") or {})}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises InputError for unknown names in the `hardware` group, and values out of range that are not planned here."""
    if errors := list(setting_errors(settings)):
        raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)), errors=errors)


def setting_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields what `check_settings` raises."""
    known = (*FOR_SPEED, "timeout_s", "max_restarts")
    for name in settings:
        if name not in known:
            yield InputError(
                f"hardware.{name}: there is no such setting. {nearest(name, known)}",
                key=f"hardware.{name}",
                suggestions=[f"hardware.{near}" for near in closest(name, known)],
            )
    timeout_s, max_restarts = settings.get("timeout_s", 1), settings.get("max_restarts", 0)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        yield InputError(f"hardware.timeout_s={timeout_s} must be a number of seconds above 0", key="hardware.timeout_s")
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int) or max_restarts < 0:
        yield InputError(
            f"hardware.max_restarts={max_restarts} must be a whole number of 0 or more", key="hardware.max_restarts"
        )


def for_trainer(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """Returns the values that are arguments of Lightning's Trainer."""
    return {name: decisions[name].value for name in FOR_TRAINER}


def choose_strategy(target: Target, indices: list[int], num_parameters: int | None) -> Decision:
    """Chooses no strategy for one process; else ddp, or fsdp when the training state of the net does not fit one GPU."""
    value, world_size = user_value(target.requested, "strategy"), target.world_size
    if value is not None:
        check_strategy(target.accelerator, value)
        if world_size == 1 and value in ("ddp", "ddp_find_unused_parameters_true"):
            # the wrapper would copy every gradient once more
            return Decision("auto", f"{value} has no effect with one process", is_user_set=True)
        return user_decision(value)
    needed = BYTES_PER_PARAMETER * (num_parameters or 0)
    fits = all(needed <= STATE_FRACTION * gpu.memory_bytes for gpu in target.gpus)
    state = f"weights, gradients and Adam's moments are {needed / 1e9:.0f} GB"
    if world_size == 1:
        return Decision("auto", "one process" if fits else f"one process; {state}, too much for this GPU: use several")
    if not fits:
        return Decision("fsdp", f"{state}, over {STATE_FRACTION:.0%} of a GPU's memory: sharded over {world_size} processes")
    is_linked = len(indices) < 2 or any(set(link) <= set(indices) for link in target.hardware_info.peer_links)
    remark = "" if is_linked else "; the GPUs have no peer links, so gradients go through the host's memory"
    return Decision("ddp", f"{world_size} processes, each with the whole model{remark}")


def is_sharded(strategy: Any) -> bool:
    """Returns whether the strategy, a name or settings with a `_target_`, shards the weights over the processes."""
    if isinstance(strategy, Mapping):
        return str(strategy.get("_target_", "")).endswith(("ModelParallelStrategy", "FSDPStrategy"))
    return str(strategy).startswith("fsdp")


def check_strategy(accelerator: str, value: Any) -> None:
    """Raises InputError for a name that Lightning does not know, or a strategy that the accelerator does not support."""
    if accelerator == "mps" and (is_sharded(value) or str(value).startswith(("ddp", "deepspeed"))):
        raise InputError(
            f"trainer.strategy={value}: there is one Apple GPU, and torch has no collectives for it. "
            "Try: strategy=auto, or trainer=cpu to test with several processes",
            key="trainer.strategy",
        )
    if isinstance(value, str) and value.endswith(STARTS_PROCESSES):
        raise InputError(
            f"trainer.strategy={value}: arclight starts the processes itself, in notebooks too. Try: strategy=ddp",
            key="trainer.strategy",
            suggestions=["trainer.strategy=ddp"],
        )
    if isinstance(value, str) and not value.startswith(STRATEGIES):
        raise unknown_value("trainer.strategy", value, "a strategy", ("auto", *STRATEGIES))
