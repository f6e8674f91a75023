"""What this machine can do at most, by its own matrix products, convolutions and copies: what every speed is a share of."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arclight.benchmark.backend import PRECISIONS, Backend, applied
from arclight.errors import InputError
from arclight.hardware import HardwareInfo

VOLTA, AMPERE = (7, 0), (8, 0)  # compute capabilities from which there are tensor cores for fp16, and for bf16 and TF32
NUM_BLOCKS = 5
BLOCK_S = 0.1  # of calls in a block
GPU_BLOCK_S = 0.03  # hundreds of products: no other program takes a GPU's time away for a moment
SMALLEST_MATRIX = 512
LARGEST_MATRIX = {"cpu": 4096, "cuda": 8192}
NUM_IMAGES = {"cpu": 4, "cuda": 64}
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # more than any cache holds


@dataclass(frozen=True)
class Machine:
    """The device that is measured on and its measured limits.

    `flops` is FLOP/s of its fastest matrix product or convolution by precision, only those that the device has;
    `copy_bytes_per_s` counts what is read and what is written.
    """

    device: str
    name: str
    num_threads: int
    flops: dict[str, float]
    copy_bytes_per_s: float


def choose_device(wish: str) -> torch.device:
    """The device to measure on: `cpu`, `cuda`, or `auto`, a GPU where there is one.

    Raises:
        InputError: when a GPU is asked for and there is none.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no GPU that torch can use; take --device cpu")
    return torch.device("cuda" if wish == "cuda" or (wish == "auto" and torch.cuda.is_available()) else "cpu")


def measure_machine(device: torch.device, hardware_info: HardwareInfo) -> Machine:
    """The limits of this machine, in a few seconds."""
    there = [name for name, reason in precisions(device, hardware_info).items() if reason is None]
    return Machine(
        device=device.type,
        name=device_name(device),
        num_threads=torch.get_num_threads(),
        flops={name: most_flops(device, name) for name in there},
        copy_bytes_per_s=copy_speed(device),
    )


def precisions(device: torch.device, hardware_info: HardwareInfo) -> dict[str, str | None]:
    """Every precision, with the reason why this device has not got it; None where it has."""
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        has_fp16 = any(capabilities.get(name, False) for name in ("avx512_fp16", "amx_fp16"))
        return {
            "fp32": None,
            "tf32": "a mode of NVIDIA's tensor cores",
            "bf16": None if hardware_info.has_fast_bf16_cpu else "this CPU emulates it, hundreds of times slower than fp32",
            "fp16": None if has_fp16 else "this CPU emulates it, many times slower than fp32",
        }
    capability = torch.cuda.get_device_capability(device)
    is_old = None if capability >= AMPERE else f"compute capability {capability[0]}.{capability[1]}; it wants 8.0"
    return {
        "fp32": None,
        "tf32": is_old,
        "bf16": is_old,
        "fp16": None if capability >= VOLTA else f"compute capability {capability[0]}.{capability[1]}; it wants 7.0",
    }


def most_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest block of matrix products or convolutions, of the sizes that suit the device best.

    Both, because they can be two libraries': on some processors the convolutions' reaches what the products' does not.
    """
    dtype = PRECISIONS[precision].dtype
    size = SMALLEST_MATRIX
    with applied(Backend(precision=precision)), torch.no_grad():
        most = speed_of(*convolution(device, dtype), device)
        while size <= LARGEST_MATRIX[device.type]:
            call = product(device, size, dtype)
            most = max(most, speed_of(call, 2 * size**3, device))
            if seconds_of(call, 1, device) > BLOCK_S:
                break
            size *= 2
    return most


def speed_of(call: Callable[[], object], flops: float, device: torch.device) -> float:
    """FLOP/s of a call that does so many."""
    call()
    return flops / fastest(call, device)


def convolution(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A call that filters images 3x3, each pixel's channels side by side, and its FLOPs."""
    generator = torch.Generator().manual_seed(0)
    num, channels, side = NUM_IMAGES[device.type], 256, 32

    def make(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype, memory_format=torch.channels_last)

    images, filters = make((num, channels, side, side)), make((channels, channels, 3, 3))
    flops = 2.0 * num * side**2 * channels**2 * 9
    return lambda: torch.conv2d(images, filters, padding=1), flops


def product(device: torch.device, size: int, dtype: torch.dtype) -> Callable[[], object]:
    """A call that multiplies two square matrices into a third."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def copy_speed(device: torch.device) -> float:
    """Bytes read and written per second by the fastest block of copies within the device's memory."""
    source = torch.ones(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source), device)


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call in the fastest of some blocks."""
    block_s = BLOCK_S if device.type == "cpu" else GPU_BLOCK_S
    num_calls = max(1, round(block_s / max(seconds_of(call, 1, device), 1e-6)))
    return min(seconds_of(call, num_calls, device) for _ in range(NUM_BLOCKS)) / num_calls


def seconds_of(call: Callable[[], object], num_calls: int, device: torch.device) -> float:
    """Seconds from now until the device has done so many calls."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(num_calls):
        call()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The GPU's name, or the processor's with the number of cores in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
                break
    return f"{name}, {torch.get_num_threads()} threads"
