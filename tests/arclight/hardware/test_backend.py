"""Settings that change the speed of a run, and how they are applied."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from arclight.errors import InputError
from arclight.hardware import Decision, HardwareInfo, apply_backend_settings, plan
from tests.arclight.hardware.test_plan import A100, CPU, CPU_BF16, GTX_1080, H100, MAC, MI300, TORCHRUN


@pytest.mark.parametrize(
    ("hardware_info", "requested", "has_fixed_shapes", "value"),
    [
        (H100, {}, True, True),
        (H100, {}, False, False),
        (H100, {"deterministic": True}, True, False),
        (H100, {"cudnn_benchmark": True}, False, True),
        (H100, {"benchmark": True}, False, True),  # as Lightning calls it
        (H100, {"cudnn_benchmark": False}, True, False),
        (CPU, {}, True, False),
    ],
)
def test_cudnn_searches_where_one_search_is_enough(
    hardware_info: HardwareInfo, requested: dict[str, Any], has_fixed_shapes: bool, value: bool
) -> None:
    assert plan(hardware_info, requested, has_fixed_shapes=has_fixed_shapes)["cudnn_benchmark"].value is value


def test_compile_is_off_unless_the_user_sets_it() -> None:
    assert plan(H100, {})["compile"].value is False
    assert plan(H100, {"compile": True})["compile"].value is True
    assert plan(CPU_BF16, {"compile": True})["compile"].value is True
    assert plan(CPU, {"compile": False})["compile"].value is False


LONG = {"max_epochs": 10, "max_steps": -1}
ON_ONE = {"has_fixed_shapes": True, "steps_per_epoch": 2_000}


@pytest.mark.parametrize(
    ("hardware_info", "requested", "known", "value", "reason"),
    [
        (H100, LONG, ON_ONE, "reduce-overhead", "20,000 steps of one shape replay one captured graph"),
        (H100, LONG, {**ON_ONE, "steps_per_epoch": 1_999}, False, "not worth it for short runs"),
        (H100, {**LONG, "max_steps": 19_999}, ON_ONE, False, "not worth it for short runs"),
        (H100, {"max_steps": 20_000}, {"has_fixed_shapes": True}, "reduce-overhead", "20,000 steps"),
        (H100, {}, ON_ONE, False, "not worth it for short runs"),  # unknown number of steps
        (H100, LONG, {**ON_ONE, "has_fixed_shapes": False}, False, "data.packing=fixed has one shape"),
        (H100, LONG, {**ON_ONE, "accumulation_steps": 2}, False, "graphs need one process and no accumulation"),
        (replace(H100, gpus=H100.gpus * 2), LONG, ON_ONE, False, "graphs need one process and no accumulation"),
        (H100, {**LONG, "deterministic": True}, ON_ONE, False, "trainer.deterministic needs the same algorithms"),
        (replace(H100, has_triton=False), LONG, ON_ONE, False, "needs a C++ compiler, triton and NVIDIA GPUs of compute"),
        (CPU_BF16, LONG, ON_ONE, False, "not worth it for short runs"),
        (H100, {"compile": "max-autotune"}, ON_ONE, "max-autotune", "set by user"),
        (H100, {"compile": "default"}, {}, True, "set by user"),
        (
            H100,
            {"compile": "reduce-overhead"},
            {},
            "reduce-overhead",
            "each batch shape is captured separately; data.packing=fixed",
        ),
        (
            H100,
            {"compile": "reduce-overhead"},
            {**ON_ONE, "accumulation_steps": 2},
            True,
            "would overwrite the gradients of earlier micro-batches",
        ),
        (
            H100,
            {"compile": "max-autotune"},
            {**ON_ONE, "accumulation_steps": 2},
            "max-autotune-no-cudagraphs",
            "would overwrite the gradients of earlier micro-batches",
        ),
        (CPU_BF16, {"compile": "reduce-overhead"}, {"accumulation_steps": 2}, "reduce-overhead", "set by user"),
    ],
)
def test_a_graph_is_captured_where_it_pays_and_is_safe(
    hardware_info: HardwareInfo, requested: dict[str, Any], known: dict[str, Any], value: bool | str, reason: str
) -> None:
    decision = plan(hardware_info, requested, **known)["compile"]
    assert decision.value == value
    assert reason in decision.reason
    assert decision.is_user_set is ("compile" in requested)


def test_threads_and_workers_share_the_cores() -> None:
    for devices, share in ((1, 16), (3, 5), (32, 1)):
        decisions = plan(CPU_BF16, {"devices": devices})
        assert (decisions["threads"].value, decisions["workers"].value) == (share, share)


@pytest.mark.parametrize(
    ("hardware_info", "requested", "threads"),
    [
        (replace(CPU_BF16, omp_num_threads=5), {}, 5),
        (replace(CPU_BF16, omp_num_threads=5), {"threads": 3}, 3),
        (replace(TORCHRUN, num_cores=8), {}, 4),  # OMP_NUM_THREADS=1 is torchrun's own
        (replace(TORCHRUN, num_cores=8, omp_num_threads=2), {}, 2),
    ],
)
def test_which_number_of_threads_wins(hardware_info: HardwareInfo, requested: dict[str, Any], threads: int) -> None:
    assert plan(hardware_info, requested)["threads"].value == threads


@pytest.mark.parametrize(
    ("hardware_info", "requested", "message"),
    [
        (CPU, {"matmul_precision": "high"}, "TF32 needs an NVIDIA Ampere or newer GPU, and this run is on cpu"),
        (GTX_1080, {"matmul_precision": "high"}, "and this run is on compute capability 6.1. Try: precision=fp32"),
        (MI300, {"matmul_precision": "high"}, "this run is on gfx942"),
        (MAC, {"matmul_precision": "medium"}, "this run is on mps"),
        (CPU, {"matmul_precision": "low"}, "hardware.matmul_precision=low must be one of highest, high, medium, auto"),
        (CPU, {"cudnn_benchmark": True}, "cuDNN needs a GPU, this run is on cpu"),
        (H100, {"cudnn_benchmark": True, "deterministic": True}, "chooses algorithms by time, and trainer.deterministic"),
        (CPU, {"compile": True}, r"hardware.compile=true needs a C\+\+ compiler and Python's headers"),
        (replace(A100, has_compiler=True), {"compile": True}, "needs the package triton on GPUs: pip install triton"),
        (
            replace(GTX_1080, has_compiler=True, has_triton=True),
            {"compile": True},
            "GPUs of compute capability 7.0 or newer; GTX 1080 is older",
        ),
        (
            CPU,
            {"compile": "yes"},
            "hardware.compile=yes must be true, false, auto, or a mode: default, reduce-overhead, max-aut",
        ),
        (CPU, {"compile": "max-autotune"}, r"hardware.compile=max-autotune needs a C\+\+ compiler"),
        (CPU, {"channels_last": 1}, "hardware.channels_last=1 must be true, false or auto"),
        (CPU, {"threads": 0}, "hardware.threads=0 must be a whole number of 1 or more, or auto"),
        (CPU, {"retain_heap": 1}, "hardware.retain_heap=1 must be true, false or auto"),
        (
            replace(CPU, system="Darwin"),
            {"retain_heap": True},
            "hardware.retain_heap=true is for Linux only, and this is Darwin. Try: auto",
        ),
        (CPU, {"workers": True}, "hardware.workers=True must be a whole number of 1 or more, or auto"),
    ],
)
def test_unsupported_settings_are_reported(hardware_info: HardwareInfo, requested: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(hardware_info, requested)


def test_processes_on_the_cpu_retain_their_heap() -> None:
    assert plan(CPU, {})["retain_heap"].value is True
    assert plan(CPU, {"retain_heap": False})["retain_heap"].value is False
    assert plan(H100, {})["retain_heap"].value is False
    assert plan(replace(CPU, system="Darwin"), {})["retain_heap"].value is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_retained_memory_is_reused_without_page_faults() -> None:
    program = """
import resource
from arclight.hardware.backend import retain_heap

def faults_of(num):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(num):
        bytearray(b"x") * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

retain_heap()
faults_of(1)
print(faults_of(8))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(said) < 100  # 131,072 pages of 4 KB


def test_cpus_multiply_fp32_in_bf16_where_they_can() -> None:
    assert plan(CPU_BF16, {"matmul_precision": "medium"})["matmul_precision"].value == "medium"


@pytest.mark.parametrize("matmul_precision", ["highest", "high"])
def test_decisions_are_applied_to_torch(matmul_precision: str) -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    chosen = {"matmul_precision": matmul_precision, "cudnn_benchmark": True, "threads": before[0] + 1, "retain_heap": False}
    try:
        apply_backend_settings({name: Decision(value, "a test") for name, value in chosen.items()})
        assert torch.get_float32_matmul_precision() == matmul_precision
        assert torch.backends.cudnn.allow_tf32 is (matmul_precision == "high")
        assert torch.backends.cudnn.benchmark is True
        assert torch.get_num_threads() == before[0] + 1
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32 = before[2]
        torch.backends.cudnn.benchmark = False
