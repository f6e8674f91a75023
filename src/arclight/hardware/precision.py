"""In which numbers to train: the fastest that train as well as fp32, as far as the device has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError, nearest
from arclight.hardware.decision import Decision, granted, requested_value
from arclight.hardware.hardware_info import VOLTA, Gpu, HardwareInfo

# Lightning's spellings, and the shorter ones that it also takes
PRECISIONS = {
    **{name: name for name in ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true")},
    **{"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"},
    **{name: name for name in ("transformer-engine", "transformer-engine-float16")},
}
SHARDED = ("32-true", "bf16-mixed", "bf16-true", "16-true")  # Source: Lightning 2.6.6, _validate_precision_choice
MATMUL = ("highest", "high", "medium")
EMULATED = "this CPU emulates bf16, hundreds of times slower than fp32"


def choose_precision(
    hardware_info: HardwareInfo, accelerator: str, gpus: tuple[Gpu, ...], requested: Mapping[str, Any], *, is_sharded: bool
) -> Decision:
    """bf16 where there are instructions for it, fp16 with a scaler on older GPUs, else fp32.

    Args:
        hardware_info: what there is.
        accelerator: "cpu", "cuda" or "mps".
        gpus: those that the run uses; the oldest decides.
        requested: as of `plan`.
        is_sharded: whether the strategy is one that knows no scaler.
    """
    wish = requested_value(requested, "precision")
    if wish is not None:
        check_precision(hardware_info, accelerator, gpus, wish, is_sharded)
        is_emulated = accelerator == "cpu" and precision_name(wish).startswith("bf16") and not hardware_info.has_fast_bf16_cpu
        return granted(wish, f"though {EMULATED}" if is_emulated else "")
    if gpus:
        return precision_of_gpus(gpus, is_sharded)
    if accelerator == "cpu" and hardware_info.has_fast_bf16_cpu:
        return Decision("bf16-mixed", "this CPU has bf16 instructions")
    if accelerator == "cpu":
        return Decision("32-true", EMULATED)
    return Decision("32-true", "exact everywhere")


def precision_of_gpus(gpus: tuple[Gpu, ...], is_sharded: bool) -> Decision:
    """What the oldest of the GPUs multiplies fastest."""
    name = generation(min(gpus, key=lambda gpu: gpu.capability))
    if all(gpu.has_bf16 for gpu in gpus):
        return Decision("bf16-mixed", f"{name} has tensor cores for bf16")
    if not all(gpu.has_fp16 for gpu in gpus):
        return Decision("32-true", f"{name} has no tensor cores")
    if is_sharded:
        return Decision("32-true", f"{name} has no bf16, and fp16 wants a scaler, which a sharded net has not")
    return Decision("16-mixed", f"{name} has tensor cores for fp16 and none for bf16")


def generation(gpu: Gpu) -> str:
    """The device by what decides its precision."""
    return gpu.architecture or f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"


def precision_name(wish: Any) -> str:
    """Lightning's full name of a precision.

    Raises:
        InputError: when it is none.
    """
    name = PRECISIONS.get(str(wish))
    if name is None:
        raise InputError(f"trainer.precision={wish} is no precision of Lightning. {nearest(str(wish), PRECISIONS)}")
    return name


def check_precision(hardware_info: HardwareInfo, accelerator: str, gpus: tuple[Gpu, ...], wish: Any, is_sharded: bool) -> None:
    """Raises InputError for a precision that the device or the strategy lacks."""
    name = precision_name(wish)
    told = f"trainer.precision={wish}"
    for gpu in gpus:
        if name.startswith("bf16") and not gpu.has_bf16:
            other = "precision=fp16" if gpu.has_fp16 else "precision=fp32"
            raise InputError(f"{told}: {gpu.name} ({generation(gpu)}) has no bf16; take {other} or precision=auto")
        if name.startswith("16") and not gpu.has_fp16:
            raise InputError(f"{told}: {gpu.name} ({generation(gpu)}) has no tensor cores for fp16; take precision=fp32")
    if name.startswith("transformer-engine") and not gpus:
        raise InputError(f"{told}: Transformer Engine runs on GPUs of CUDA only; take precision=auto")
    if accelerator == "cpu" and name.startswith("16"):
        raise InputError(f"{told}: CPUs do not train in fp16; take precision=auto")
    if accelerator == "mps" and name == "64-true":
        raise InputError(f"{told}: Apple's GPU has no fp64; take precision=fp32, or trainer=cpu")
    if accelerator == "mps" and name.startswith("bf16") and not hardware_info.has_mps_bf16:
        raise InputError(f"{told}: bf16 on Apple's GPU wants macOS 14 or newer; take precision=fp32")
    if is_sharded and name not in SHARDED:
        raise InputError(f"{told} does not go with strategy=fsdp, which has {', '.join(SHARDED)}; take precision=auto")


def choose_matmul_precision(
    hardware_info: HardwareInfo, accelerator: str, gpus: tuple[Gpu, ...], requested: Mapping[str, Any], precision: str
) -> Decision:
    """How exactly fp32 numbers are multiplied: "highest" is fp32, "high" TF32, "medium" bf16; cuDNN's convolutions follow.

    TF32 has fp32's range and 10 bits of mantissa. Under mixed precision what is left in fp32 meets numbers of 7 bits (bf16)
    anyway; who asks for fp32 gets it.
    """
    wish = requested_value(requested, "matmul_precision")
    has_tf32 = bool(gpus) and all(gpu.has_tf32 for gpu in gpus)
    if wish is not None:
        if wish not in MATMUL:
            raise InputError(f"hardware.matmul_precision={wish} is none of {', '.join(MATMUL)}, auto")
        if (
            wish != "highest"
            and not has_tf32
            and not (wish == "medium" and accelerator == "cpu" and hardware_info.has_fast_bf16_cpu)
        ):
            device = generation(gpus[0]) if gpus else accelerator
            raise InputError(
                f"hardware.matmul_precision={wish}: TF32 is of GPUs of CUDA from compute capability 8.0 on, and this run is on "
                f"{device}; take precision=fp32 or precision=auto"
            )
        return granted(wish)
    if has_tf32 and precision_name(precision).endswith("-mixed"):
        return Decision("high", "what mixed precision leaves in fp32 runs as TF32, still finer than bf16")
    return Decision("highest", "fp32 is multiplied as fp32")


def uses_tensor_cores(gpus: tuple[Gpu, ...], precision: str, matmul_precision: str) -> bool:
    """Whether the products of this precision run on tensor cores of CUDA."""
    if not gpus or any(gpu.architecture or gpu.capability < VOLTA for gpu in gpus):
        return False
    return precision_name(precision) not in ("32-true", "64-true") or matmul_precision != "highest"
