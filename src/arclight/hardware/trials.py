"""What the hardware does when it is asked to: products of matrices in each precision, sums over two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import first_line
from arclight.hardware.hardware_info import HardwareInfo

if TYPE_CHECKING:
    import torch

# What each precision is of torch, and how far a product of numbers from 0 to 1 may be from the true one, relative
PRECISIONS = {"fp32": ("float32", 1e-4), "tf32": ("float32", 1e-2), "bf16": ("bfloat16", 5e-2), "fp16": ("float16", 1e-2)}
PRECISIONS |= {"fp64": ("float64", 1e-10)}
LONG_ENOUGH_S = 0.05  # a run that takes less says little
SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)
NUM_RUNS = 3
NUM_NUMBERS = 2**20  # fp32 numbers that the two processes add up: 4 MiB
TIMEOUT_S = {"gloo": 12.0, "nccl": 60.0}  # the time to import torch twice included


@dataclass(frozen=True)
class Trial:
    """What came out: `value` in `unit`, or, where `is_right` is false, `problem`."""

    name: str
    is_right: bool
    value: float = 0.0
    unit: str = ""
    problem: str = ""


def run_trials(hardware_info: HardwareInfo, accelerator: str) -> list[Trial]:
    """Everything that can be tried on this machine; a few seconds."""
    names = [
        name
        for name in PRECISIONS
        if name != "tf32" or (accelerator == "cuda" and any(gpu.has_tf32 for gpu in hardware_info.gpus))
    ]
    trials = [try_product(name, accelerator) for name in names]
    trials.append(try_all_reduce("gloo"))
    if len(hardware_info.gpus) > 1:
        trials.append(try_all_reduce("nccl"))
    return trials


def try_product(precision: str, device: str) -> Trial:
    """How fast two matrices are multiplied, in units of 10^9 operations per second, and whether the product is right.

    The matrices grow until a product takes 50 ms, so that an emulated precision is done after the first small one.
    """
    name = f"matrix product in {precision}, {device}"
    try:
        error, rate = measure_product(precision, device)
    except Exception as problem:  # a device lacks a precision in its own words
        return Trial(name, is_right=False, problem=first_line(problem) or type(problem).__name__)
    limit = PRECISIONS[precision][1]
    if not error <= limit:
        return Trial(
            name, is_right=False, problem=f"the product is wrong: relative error {error:.2g}, at most {limit:.0g} is right"
        )
    return Trial(name, is_right=True, value=rate / 1e9, unit="GFLOP/s")


def measure_product(precision: str, device: str) -> tuple[float, float]:
    """The largest relative error of a small product, and the operations per second of the best of a few large ones."""
    import torch

    dtype = getattr(torch, PRECISIONS[precision][0])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        generator = torch.Generator().manual_seed(0)
        pair = [torch.rand(SIZES[0], SIZES[0], generator=generator, dtype=torch.float64) for _ in range(2)]
        true = pair[0] @ pair[1]
        product = (pair[0].to(dtype).to(device) @ pair[1].to(dtype).to(device)).cpu().double()
        error = float(((product - true) / true).abs().max())
        for size in SIZES:
            left, right = (torch.rand(size, size).to(dtype).to(device) for _ in range(2))
            run = multiply(left, right)
            run(1)  # kernels are loaded and chosen
            took = run(1)
            if took >= LONG_ENOUGH_S:
                break
        num_products = max(1, round(LONG_ENOUGH_S / took))
        took = min([took, *(run(num_products) / num_products for _ in range(NUM_RUNS))])
    finally:
        torch.set_float32_matmul_precision(before)
    return error, 2 * size**3 / took


def multiply(left: torch.Tensor, right: torch.Tensor) -> Callable[[int], float]:
    """Multiplies so many times and says how many seconds it took."""
    import torch

    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(left.device.type, lambda: None)

    def run(num_products: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(num_products):
            left @ right
        wait()
        return time.perf_counter() - began

    return run


def try_all_reduce(backend: str) -> Trial:
    """Whether two processes of this machine add up right, over loopback or between two GPUs, and how fast.

    The value counts the bytes that each process handed in.
    """
    name = f"sum over two processes, {backend}"
    command = [sys.executable, "-c", "from arclight.hardware.trials import all_reduce; all_reduce()"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
        environment |= {"TRIAL_BACKEND": backend, "TRIAL_FILE": str(Path(folder) / "rendezvous")}
        processes = [
            subprocess.Popen(
                command,
                env={**environment, "TRIAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            for rank in range(2)
        ]
        return hear(name, processes, TIMEOUT_S[backend])


def hear(name: str, processes: list[subprocess.Popen[str]], timeout_s: float) -> Trial:
    """What the processes found; none of them outlives this."""
    ends_at = time.monotonic() + timeout_s
    answers = []
    try:
        for process in processes:
            said, complained = process.communicate(timeout=max(0.1, ends_at - time.monotonic()))
            if process.returncode:
                lines = complained.strip().splitlines() or [f"a process ended with status {process.returncode}"]
                return Trial(name, is_right=False, problem=lines[-1])
            answers.append(json.loads(said.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Trial(name, is_right=False, problem=f"no answer within {timeout_s:.0f} s")
    except (ValueError, IndexError):
        return Trial(name, is_right=False, problem="a process gave no answer")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    if not all(answer["is_right"] for answer in answers):
        return Trial(name, is_right=False, problem="the sum is wrong")
    return Trial(name, is_right=True, value=min(answer["bytes_per_s"] for answer in answers) / 1e6, unit="MB/s")


def all_reduce() -> None:
    """One of the two processes of `try_all_reduce`: prints what it found as JSON."""
    import torch
    from torch import distributed

    backend, rank = os.environ["TRIAL_BACKEND"], int(os.environ["TRIAL_RANK"])
    device = f"cuda:{rank}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    distributed.init_process_group(backend, init_method=f"file://{os.environ['TRIAL_FILE']}", rank=rank, world_size=2)
    best = float("inf")
    is_right = True
    for _ in range(1 + NUM_RUNS):  # the first makes the connections
        numbers = torch.full((NUM_NUMBERS,), float(rank + 1), device=device)
        distributed.barrier()
        began = time.perf_counter()
        distributed.all_reduce(numbers)
        is_right &= bool((numbers == 3).all())  # waits for the GPU
        best = min(best, time.perf_counter() - began)
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps({"is_right": is_right, "bytes_per_s": 4 * NUM_NUMBERS / best}) + "\n")
