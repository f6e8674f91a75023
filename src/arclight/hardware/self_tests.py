"""Short tests of the hardware for doctor: matrix products in each precision, and a sum over two processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass

from arclight.errors import first_line
from arclight.hardware.hardware_info import HardwareInfo

# the largest relative error of a correct product of numbers from 0 to 1
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2, "fp64": 1e-10}
SIZE = 128  # of the smallest matrices
NUM_SUMS = 3
NUM_NUMBERS = 2**20  # fp32 numbers in each sum: 4 MiB
TIMEOUT_S = 60.0  # of a sum, with two imports of torch on a busy machine


@dataclass(frozen=True)
class SelfTest:
    """The result of a test: `value` in `unit`, or the `problem` if it failed."""

    name: str
    passed: bool
    value: float = 0.0
    unit: str = ""
    problem: str = ""


def run_self_tests(hardware_info: HardwareInfo, accelerator: str) -> list[SelfTest]:
    """Returns the results of all tests that apply to this machine, after a few seconds."""
    has_tf32 = accelerator == "cuda" and any(gpu.has_tf32 for gpu in hardware_info.gpus)
    results = [check_product(name, accelerator) for name in TOLERANCES if name != "tf32" or has_tf32]
    results.append(check_all_reduce("gloo"))
    if len(hardware_info.gpus) > 1:
        results.append(check_all_reduce("nccl"))
    return results


def check_product(precision: str, device: str) -> SelfTest:
    """Checks that a small product of matrices is right, and measures the speed of products that are large enough to time."""
    import torch

    from arclight.hardware.peak_measurement import product_flops

    name = f"matrix product in {precision}, {device}"
    try:
        error = product_error(precision, device)
        if not error <= TOLERANCES[precision]:
            problem = f"the product is wrong: relative error {error:.2g}, at most {TOLERANCES[precision]:.0g} is right"
            return SelfTest(name, passed=False, problem=problem)
        flops = product_flops(torch.device(device), precision, smallest=SIZE, only_last=True)
        return SelfTest(name, passed=True, value=flops / 1e9, unit="GFLOP/s")
    except Exception as error:  # each device has its own errors for a precision that it does not support
        return SelfTest(name, passed=False, problem=first_line(error) or type(error).__name__)


def product_error(precision: str, device: str) -> float:
    """Returns the largest relative error of a small product against fp64."""
    import torch

    from arclight.hardware.peak_measurement import DTYPES, float32_precision

    dtype = DTYPES[precision]
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = left @ right
    with float32_precision(precision):
        product = (left.to(dtype).to(device) @ right.to(dtype).to(device)).cpu().double()
    return float(((product - expected) / expected).abs().max())


def check_all_reduce(backend: str) -> SelfTest:
    """Checks the sum over two processes, on the CPU or on two GPUs; ends with the first that fails."""
    name = f"sum over two processes, {backend}"
    try:
        with tempfile.TemporaryDirectory() as directory, multiprocessing.get_context("spawn").Pool(2) as pool:
            rates = pool.imap_unordered(all_reduce, [(rank, backend, directory) for rank in range(2)])
            return SelfTest(name, passed=True, value=min(rates.next(TIMEOUT_S) for _ in range(2)) / 1e6, unit="MB/s")
    except multiprocessing.TimeoutError:
        problem = f"no answer within {TIMEOUT_S:.0f} s"
    except Exception as error:  # of either process
        problem = first_line(error) or type(error).__name__
    return SelfTest(name, passed=False, problem=problem)


def all_reduce(task: tuple[int, str, str]) -> float:
    """Runs in each of the two processes of `check_all_reduce`; returns bytes per second. Experimental on GPUs (nccl).

    Raises:
        ArithmeticError: when the sum is wrong.
    """
    import torch
    from torch import distributed

    rank, backend, directory = task
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    device = f"cuda:{rank}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    distributed.init_process_group(backend, init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)
    fastest_s = float("inf")
    for _ in range(1 + NUM_SUMS):  # the first opens the connections
        numbers = torch.full((NUM_NUMBERS,), float(rank + 1), device=device)
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(numbers)
        if not (numbers == 3).all():  # waits for the GPU
            raise ArithmeticError("the sum is wrong")
        fastest_s = min(fastest_s, time.perf_counter() - start)
    distributed.destroy_process_group()
    return 4 * NUM_NUMBERS / fastest_s
