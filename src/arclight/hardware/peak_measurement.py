"""Peaks of a device: FLOP/s of its matrix products and convolutions by precision, and the bandwidth of its memory.

The only place that times matrix products. Loads torch when imported; `arclight.hardware` itself does not import it.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from arclight.errors import InputError
from arclight.hardware.container_limits import ROOT
from arclight.hardware.hardware_info import AMPERE, VOLTA, HardwareInfo, cpu_name

NUM_BLOCKS = 5
BLOCK_S = 0.1  # of calls in a block
GPU_BLOCK_S = 0.03  # hundreds of products: no other program takes a GPU's time away for a moment
SMALLEST_MATRIX = 512
LARGEST_MATRIX = {"cpu": 4096, "cuda": 8192, "mps": 4096}
NUM_IMAGES = {"cpu": 4, "cuda": 64, "mps": 16}
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}  # more than any cache holds


# of the operands; TF32 is a rounding of float32 operands
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
# Names for which Lightning 2.6.6 finds the dense figures of the right device. Its search by part of the name also gives the L40
# those of the L4, and a MIG slice those of the whole GPU.
IN_LIGHTNING = (
    r"NVIDIA (H100 80GB HBM3|H100 PCIe|A100-(SXM4|PCIE)-[48]0GB|A100 80GB PCIe|L4)|Tesla (T4|V100-(SXM2|PCIE)-(16|32)GB)"
)
# TFLOP/s of fp16 and bf16, TF32, and fp32 for devices that Lightning does not know or lists with figures for sparse matrices
# (twice as much). Source: NVIDIA's data sheets of these GPUs; TF32 of the H200 is that of the H100's white paper.
CORRECTED = {
    "NVIDIA B200": (2250, 1100, 75),
    "NVIDIA H200": (989.5, 494.7, 67),
    "NVIDIA H200 NVL": (835.5, 417.5, 60),
    "NVIDIA H100 NVL": (835.5, 417.5, 60),
    "NVIDIA A30": (165, 82, 10.3),
    "NVIDIA A40": (149.7, 74.8, 37.4),
    "NVIDIA A10": (125, 62.5, 31.2),
    "NVIDIA L40": (181, 90.5, 90.5),
    "NVIDIA L40S": (362, 183, 91.6),
}


@dataclass(frozen=True)
class MeasuredPeaks:
    """A device and its measured peaks.

    `flops` is FLOP/s of the fastest matrix product or convolution by precision, for the precisions that the device has.
    `copy_bytes_per_s` counts the bytes that are read and those that are written.
    """

    device: str
    name: str
    num_threads: int
    flops: dict[str, float]
    copy_bytes_per_s: float


def choose_device(requested: str) -> torch.device:
    """Returns the device to measure on: `cpu`, `cuda`, or for `auto` a GPU where there is one.

    Raises:
        InputError: when a GPU is requested and there is none.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU on this machine. Try: --device cpu")
    return torch.device("cuda" if requested == "cuda" or (requested == "auto" and torch.cuda.is_available()) else "cpu")


def measure_peaks(device: torch.device, hardware_info: HardwareInfo) -> MeasuredPeaks:
    """Measures the peaks of this machine, in a few seconds."""
    available = [name for name, reason in unavailable_precisions(device, hardware_info).items() if reason is None]
    return MeasuredPeaks(
        device=device.type,
        name=device_name(device),
        num_threads=torch.get_num_threads(),
        flops={name: measure_flops(device, name) for name in available},
        copy_bytes_per_s=copy_bandwidth(device),
    )


def largest(peaks: Sequence[MeasuredPeaks]) -> MeasuredPeaks:
    """Returns the largest of several measurements of one device: other programs make the others smaller."""
    flops = {name: max(each.flops[name] for each in peaks) for name in peaks[0].flops}
    return replace(peaks[0], flops=flops, copy_bytes_per_s=max(each.copy_bytes_per_s for each in peaks))


def unavailable_precisions(device: torch.device, hardware_info: HardwareInfo) -> dict[str, str | None]:
    """Returns for fp32, tf32, bf16 and fp16 the reason why the device does not have it, None where it does."""
    if device.type == "cpu":
        has_fp16 = any(name in hardware_info.instruction_sets for name in ("avx512_fp16", "amx_fp16"))
        return {
            "fp32": None,
            "tf32": "needs an NVIDIA Ampere or newer GPU",
            "bf16": None if hardware_info.has_fast_bf16_cpu else "this CPU has no instructions for it",
            "fp16": None if has_fp16 else "this CPU has no instructions for it",
        }
    major, minor = capability = torch.cuda.get_device_capability(device)
    too_old = None if capability >= AMPERE else f"compute capability {major}.{minor} is below 8.0"
    fp16 = None if capability >= VOLTA else f"compute capability {major}.{minor} is below 7.0"
    return {"fp32": None, "tf32": too_old, "bf16": too_old, "fp16": fp16}


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """Context manager that computes float32 products and convolutions exactly, or in TF32, and restores the settings."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def measure_flops(device: torch.device, precision: str) -> float:
    """Returns FLOP/s of the fastest block of convolutions or matrix products, whichever size and kind suits the device best.

    Both are measured because they can come from two libraries: on some processors convolutions reach what products do not.
    """
    with float32_precision(precision), torch.no_grad():
        call, flops = convolution(device, DTYPES[precision])
        call()
        return max(flops / fastest_call_s(call, device), product_flops(device, precision))


def product_flops(device: torch.device, precision: str, *, smallest: int = SMALLEST_MATRIX, only_last: bool = False) -> float:
    """Returns FLOP/s of the fastest block of square matrix products; sizes double from `smallest` until one takes BLOCK_S.

    With `only_last` it times the last size only, which is quick in emulated precisions, too.
    """
    size, most, is_last = smallest, 0.0, False
    with float32_precision(precision), torch.no_grad():
        while not is_last:
            call = product(device, size, DTYPES[precision])
            call()
            is_last = seconds_of(call, 1, device) > BLOCK_S or 2 * size > LARGEST_MATRIX[device.type]
            if is_last or not only_last:
                most = max(most, 2 * size**3 / fastest_call_s(call, device))
            size *= 2
    return most


def convolution(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """Returns a call that convolves channels-last images with 3x3 filters, and its FLOPs."""
    generator = torch.Generator().manual_seed(0)
    num, channels, side = NUM_IMAGES[device.type], 256, 32

    def make(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype, memory_format=torch.channels_last)

    images, filters = make((num, channels, side, side)), make((channels, channels, 3, 3))
    flops = 2.0 * num * side**2 * channels**2 * 9
    return lambda: torch.conv2d(images, filters, padding=1), flops


def product(device: torch.device, size: int, dtype: torch.dtype) -> Callable[[], object]:
    """Returns a call that multiplies two square matrices into a third."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def copy_bandwidth(device: torch.device) -> float:
    """Returns the bytes read and written per second by the fastest block of copies within the device's memory."""
    source = torch.ones(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest_call_s(lambda: target.copy_(source), device)


def fastest_call_s(call: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of one call in the fastest of NUM_BLOCKS blocks."""
    block_s = BLOCK_S if device.type == "cpu" else GPU_BLOCK_S
    num_calls = max(1, round(block_s / max(seconds_of(call, 1, device), 1e-6)))
    return min(seconds_of(call, num_calls, device) for _ in range(NUM_BLOCKS)) / num_calls


def seconds_of(call: Callable[[], object], num_calls: int, device: torch.device) -> float:
    """Returns the seconds until the device has finished so many calls."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(num_calls):
        call()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished all its work."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def device_name(device: torch.device, root: Path = ROOT) -> str:
    """Returns the name of the GPU, or of the processor with the number of threads in use. `root` contains `proc`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name(root)}, {torch.get_num_threads()} threads"


def known_peak_flops(device: torch.device, precision: str) -> float | None:
    """Returns the peak FLOP/s of a GPU for dense products under torch's present matmul precision, of NVIDIA's data sheets.

    None if unknown, as for CPUs and Apple GPUs. `precision` is Lightning's name, such as "bf16-mixed".
    """
    from lightning.fabric.utilities.throughput import get_available_flops  # takes a second, and doctor does not need it

    dtype = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}.get(precision.partition("-")[0])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if dtype is not None and name in CORRECTED:
        half, tf32, fp32 = CORRECTED[name]
        return 1e12 * (half if dtype != torch.float32 else fp32 if torch.get_float32_matmul_precision() == "highest" else tf32)
    if dtype is None or not re.fullmatch(IN_LIGHTNING, name):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bf16 of a GPU without it
        return get_available_flops(device, dtype)  # decides on TF32 by itself
