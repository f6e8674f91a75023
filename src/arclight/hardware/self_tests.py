"""Short tests of the hardware for doctor: matrix products in each precision, and a sum over two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from arclight.errors import first_line
from arclight.hardware.hardware_info import HardwareInfo

# the largest relative error of a correct product of numbers from 0 to 1
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2, "fp64": 1e-10}
SIZE = 128  # of the smallest matrices
NUM_SUMS = 3
NUM_NUMBERS = 2**20  # fp32 numbers in each sum: 4 MiB
TIMEOUT_S = {"gloo": 12.0, "nccl": 60.0}  # with two imports of torch


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

    from arclight.hardware.peak_measurement import PRECISIONS, float32_precision

    dtype, has_tf32 = PRECISIONS[precision]
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = left @ right
    with float32_precision(allow_tf32=has_tf32):
        product = (left.to(dtype).to(device) @ right.to(dtype).to(device)).cpu().double()
    return float(((product - expected) / expected).abs().max())


def check_all_reduce(backend: str) -> SelfTest:
    """Checks the sum over two processes, on the CPU or on two GPUs; the value is bytes per process and second."""
    name = f"sum over two processes, {backend}"
    command = [sys.executable, "-c", "from arclight.hardware.self_tests import all_reduce; all_reduce()"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
        environment |= {"SELF_TEST_BACKEND": backend, "SELF_TEST_FILE": str(Path(directory) / "rendezvous")}
        processes = [
            subprocess.Popen(
                command,
                env={**environment, "SELF_TEST_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            for rank in range(2)
        ]
        return collect_result(name, processes, TIMEOUT_S[backend])


def collect_result(name: str, processes: list[subprocess.Popen[str]], timeout_s: float) -> SelfTest:
    """Returns the result that the processes print, and ends them."""
    deadline = time.monotonic() + timeout_s
    answers, problem = [], ""
    try:
        for process in processes:
            output, errors = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if process.returncode:
                problem = (errors.strip().splitlines() or [f"a process exited with status {process.returncode}"])[-1]
                break
            answers.append(json.loads(output.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        problem = f"no answer within {timeout_s:.0f} s"
    except (ValueError, IndexError):
        problem = "a process gave no answer"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    if not problem and not all(answer["is_right"] for answer in answers):
        problem = "the sum is wrong"
    if problem:
        return SelfTest(name, passed=False, problem=problem)
    return SelfTest(name, passed=True, value=min(answer["bytes_per_s"] for answer in answers) / 1e6, unit="MB/s")


def all_reduce() -> None:
    """Runs in each of the two processes of `check_all_reduce`: prints the result as JSON. Experimental on GPUs (nccl)."""
    import torch
    from torch import distributed

    backend, rank = os.environ["SELF_TEST_BACKEND"], int(os.environ["SELF_TEST_RANK"])
    device = f"cuda:{rank}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    distributed.init_process_group(backend, init_method=f"file://{os.environ['SELF_TEST_FILE']}", rank=rank, world_size=2)
    fastest_s, is_right = float("inf"), True
    for _ in range(1 + NUM_SUMS):  # the first opens the connections
        numbers = torch.full((NUM_NUMBERS,), float(rank + 1), device=device)
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(numbers)
        is_right &= bool((numbers == 3).all())  # waits for the GPU
        fastest_s = min(fastest_s, time.perf_counter() - start)
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps({"is_right": is_right, "bytes_per_s": 4 * NUM_NUMBERS / fastest_s}) + "\n")
