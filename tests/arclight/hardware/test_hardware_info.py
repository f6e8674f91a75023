"""What `probe` finds, with fake systems and drivers."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arclight.hardware import Gpu, HardwareInfo, probe
from tests.arclight.hardware.test_container_limits import write

X86 = "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"
ARM = "Features\t: fp asimd asimdhp bf16 sve svebf16\n"


def test_this_machine() -> None:
    hardware_info = probe()
    assert hardware_info.num_cores >= 1
    assert hardware_info.memory_bytes > 0
    assert hardware_info.cpu_name
    assert json.loads(json.dumps(asdict(hardware_info)))["launch"]["world_size"] == hardware_info.launch.world_size


@pytest.mark.parametrize(
    ("cpuinfo", "instruction_sets"),
    [
        (X86, {"avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_tile"}),
        (ARM, {"neon", "fp16_arith", "bf16", "sve", "sve_bf16"}),
        ("", set()),
    ],
)
def test_instruction_sets_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, instruction_sets: set[str]
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    hardware_info = probe({}, write(tmp_path, {"proc/cpuinfo": cpuinfo}))
    assert set(hardware_info.instruction_sets) == instruction_sets
    assert hardware_info.has_fast_bf16_cpu == bool(instruction_sets)


def test_instruction_sets_from_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False}, raising=False)
    hardware_info = probe({}, write(tmp_path, {"proc/cpuinfo": X86}))
    assert hardware_info.instruction_sets == ("avx2",)
    assert hardware_info.cpu_name == "Some CPU"
    assert not hardware_info.has_fast_bf16_cpu


@pytest.mark.parametrize(
    ("gpu", "support"),
    [
        (Gpu("GTX 1080", 1, (6, 1)), (False, False, False)),
        (Gpu("V100", 1, (7, 0)), (True, False, False)),
        (Gpu("A100", 1, (8, 0)), (True, True, True)),
        (Gpu("MI300X", 1, (9, 4), "gfx942"), (True, True, False)),
        (Gpu("MI50", 1, (9, 0), "gfx906"), (False, False, False)),
    ],
)
def test_precisions_of_a_gpu(gpu: Gpu, support: tuple[bool, bool, bool]) -> None:
    assert (gpu.has_fp16, gpu.has_bf16, gpu.has_tf32) == support


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="A100", total_memory=80, major=8, minor=0, gcnArchName="gfx90a:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda first, second: True)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_and_their_links(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware_info = probe({})
    assert hardware_info.gpus == (Gpu("A100", 80, (8, 0)),) * 2
    assert hardware_info.peer_links == ((0, 1),)
    assert hardware_info.problems == ()
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda first, second: first < second)
    hardware_info = probe({})
    assert hardware_info.gpus[0].architecture == "gfx90a"
    assert hardware_info.torch_build == "rocm 7.0"
    assert hardware_info.peer_links == ()


@pytest.mark.usefixtures("two_gpus")
def test_a_driver_that_fails_leaves_only_its_field_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA unknown error\nand a long story")

    monkeypatch.setattr(torch.cuda, "can_device_access_peer", fail)
    hardware_info = probe({})
    assert len(hardware_info.gpus) == 2
    assert hardware_info.problems == ("peer links between GPUs: CUDA unknown error",)
    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    hardware_info = probe({})
    assert hardware_info.gpus == ()
    assert hardware_info.problems == ("the CUDA driver: CUDA unknown error",)


def test_warnings_of_a_driver_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    def complain() -> int:
        warnings.warn("the driver is too old", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(torch.cuda, "device_count", complain)
    assert probe({}).problems == ("the CUDA driver: the driver is too old",)


def test_a_driver_that_torch_cannot_use_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    (problem,) = probe({}, write(tmp_path, {"proc/driver/nvidia/version": "580"})).problems
    assert "this torch is built for CPUs only" in problem


def test_a_slurm_job_without_srun_is_reported() -> None:
    job = {"SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}
    (problem,) = probe(job).problems
    assert "was not started by srun" in problem
    assert probe({**job, "SLURM_STEP_ID": "0"}).problems == ()


def test_omp_num_threads() -> None:
    assert probe({"OMP_NUM_THREADS": "3"}).omp_num_threads == 3
    assert probe({}).omp_num_threads is None


@pytest.mark.parametrize(("name", "is_there"), [("my-c++", True), ("gone", False)])
def test_the_compiler_is_the_one_that_cxx_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_there: bool
) -> None:
    write(tmp_path, {"my-c++": "#!/bin/sh\n", "Python.h": ""})
    (tmp_path / "my-c++").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert probe({"CXX": f"{name} -O2", "PATH": str(tmp_path)}).has_compiler is is_there


def test_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    assert (probe({}).has_mps, probe({}).has_mps_bf16) == (True, False)


def test_a_mac_emulates_bf16_on_its_cpu() -> None:
    assert not HardwareInfo(1, 1, system="Darwin", instruction_sets=("neon", "bf16")).has_fast_bf16_cpu


def test_the_package_imports_without_torch() -> None:
    code = "import sys, arclight.hardware, arclight.hardware.self_tests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
