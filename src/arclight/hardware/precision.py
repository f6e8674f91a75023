"""Decisions about precision: the fastest that trains as well as fp32 and that the device has."""

from __future__ import annotations

from typing import Any

from arclight.errors import InputError
from arclight.hardware.decision import Decision, Target, unknown_value, user_decision, user_value
from arclight.hardware.hardware_info import Gpu

# Lightning's names and their short forms
PRECISIONS = {
    **{name: name for name in ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true")},
    **{"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"},
    **{name: name for name in ("transformer-engine", "transformer-engine-float16")},
}
SHARDED = ("32-true", "bf16-mixed", "bf16-true", "16-true")  # Source: Lightning 2.6.6, _validate_precision_choice
MATMUL = ("highest", "high", "medium")
EMULATED = "this CPU has no bf16 instructions, without which bf16 is slower than fp32"


def choose_precision(target: Target, *, is_sharded: bool) -> Decision:
    """Chooses bf16 where there are instructions for it, fp16 with a gradient scaler on older GPUs, else fp32.

    Args:
        target: with several kinds of GPUs, the oldest decides.
        is_sharded: whether the strategy is one without a gradient scaler.
    """
    value, gpus, has_bf16 = user_value(target.requested, "precision"), target.gpus, target.hardware_info.has_fast_bf16_cpu
    if value is not None:
        check_precision(target, value, is_sharded)
        is_emulated = target.accelerator == "cpu" and precision_name(value).startswith("bf16") and not has_bf16
        return user_decision(value, EMULATED if is_emulated else "")
    if not gpus:
        if target.accelerator == "cpu":
            return Decision("bf16-mixed", "this CPU has bf16 instructions") if has_bf16 else Decision("32-true", EMULATED)
        return Decision("32-true", "available everywhere")
    name = generation(min(gpus, key=lambda gpu: gpu.capability))
    if all(gpu.has_bf16 for gpu in gpus):
        return Decision("bf16-mixed", f"{name} has tensor cores for bf16")
    if not all(gpu.has_fp16 for gpu in gpus):
        return Decision("32-true", f"{name} has no tensor cores")
    if is_sharded:
        return Decision("32-true", f"{name} has no bf16, and fp16 needs a gradient scaler, which fsdp does not have")
    return Decision("16-mixed", f"{name} has tensor cores for fp16, not for bf16")


def generation(gpu: Gpu) -> str:
    """Returns the property of a GPU that decides its precision."""
    return gpu.architecture or f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"


def precision_name(value: Any) -> str:
    """Returns Lightning's full name of a precision; raises InputError for an unknown one."""
    name = PRECISIONS.get(str(value))
    if name is None:
        raise unknown_value("trainer.precision", value, "a precision", PRECISIONS)
    return name


def check_precision(target: Target, value: Any, is_sharded: bool) -> None:
    """Raises InputError for a precision that the device or the strategy does not support."""
    name, setting = precision_name(value), f"trainer.precision={value}"
    for gpu in target.gpus:
        if name.startswith("bf16") and not gpu.has_bf16:
            other = "precision=fp16" if gpu.has_fp16 else "precision=fp32"
            raise InputError(
                f"{setting}: {gpu.name} ({generation(gpu)}) has no bf16. Try: {other} or precision=auto",
                key="trainer.precision",
            )
        if name.startswith("16") and not gpu.has_fp16:
            raise InputError(
                f"{setting}: {gpu.name} ({generation(gpu)}) has no tensor cores for fp16. Try: precision=fp32",
                key="trainer.precision",
            )
    if name.startswith("transformer-engine") and not target.gpus:
        raise InputError(f"{setting}: Transformer Engine needs an NVIDIA GPU. Try: precision=auto", key="trainer.precision")
    if target.accelerator == "cpu" and name.startswith("16"):
        raise InputError(f"{setting}: CPUs do not train in fp16. Try: precision=auto", key="trainer.precision")
    if target.accelerator == "mps" and name == "64-true":
        raise InputError(f"{setting}: Apple GPUs have no fp64. Try: precision=fp32, or trainer=cpu", key="trainer.precision")
    if target.accelerator == "mps" and name.startswith("bf16") and not target.hardware_info.has_mps_bf16:
        raise InputError(f"{setting}: bf16 on Apple GPUs needs macOS 14 or newer. Try: precision=fp32", key="trainer.precision")
    if is_sharded and name not in SHARDED:
        raise InputError(
            f"{setting} does not work with strategy=fsdp, only {', '.join(SHARDED)} do. Try: precision=auto",
            key="trainer.precision",
        )


def choose_matmul_precision(target: Target, precision: str) -> Decision:
    """Chooses how exact products of fp32 matrices are: "highest" is fp32, "high" TF32, "medium" bf16; convolutions follow.

    TF32 has fp32's range and 10 bits of mantissa. Under mixed precision what is left in fp32 is combined with numbers of 7 bits
    (bf16) anyway; with fp32 the user gets fp32.
    """
    value, gpus = user_value(target.requested, "matmul_precision"), target.gpus
    has_tf32 = bool(gpus) and all(gpu.has_tf32 for gpu in gpus)
    if value is None:
        if has_tf32 and precision_name(precision).endswith("-mixed"):
            return Decision("high", "TF32 for what mixed precision leaves in fp32, still finer than bf16")
        return Decision("highest", "fp32 products are exact")
    if value not in MATMUL:
        raise InputError(
            f"hardware.matmul_precision={value} must be one of {', '.join(MATMUL)}, auto", key="hardware.matmul_precision"
        )
    has_medium = has_tf32 or (target.accelerator == "cpu" and target.hardware_info.has_fast_bf16_cpu)
    if value != "highest" and not (has_medium if value == "medium" else has_tf32):
        device = generation(gpus[0]) if gpus else target.accelerator
        raise InputError(
            f"hardware.matmul_precision={value}: TF32 needs an NVIDIA Ampere or newer GPU, and this run is on {device}. "
            "Try: precision=fp32 or precision=auto",
            key="hardware.matmul_precision",
        )
    return user_decision(value)
