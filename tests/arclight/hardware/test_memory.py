"""Memory is counted as the system counts it, and its end is told with the ways out."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from arclight.errors import InputError
from arclight.hardware.memory import (
    free_bytes,
    free_device_bytes,
    is_out_of_memory,
    peak_bytes,
    report_out_of_memory,
    reset_peak,
    resident_bytes,
)

CPU = torch.device("cpu")
CUDA_TOLD = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 79.11 GiB of which 1.02 GiB is free.\nSee"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA_TOLD),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_the_end_of_memory_is_told_with_the_ways_out(error: RuntimeError) -> None:
    told = (
        "(?s)the device's memory does not hold a training step .*data.max_batch_per_device=N takes N samples at once.*"
        "try half of the batch, then a quarter; besides, less memory is taken by precision=bf16"
    )
    with pytest.raises(InputError, match=told) as raised, report_out_of_memory():
        raise error
    assert raised.value.__cause__ is error
    assert "GPU 0" not in str(raised.value)


def test_what_torch_really_says_is_known() -> None:
    with pytest.raises(InputError, match="does not hold a training step"), report_out_of_memory():
        torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)) as raised, report_out_of_memory():
        raise error
    assert raised.value is error


def test_a_control_groups_limit_counts_less_what_it_holds(tmp_path: Path) -> None:
    machine = free_bytes(tmp_path)
    assert machine > 0
    for name, text in (("memory.max", "5000"), ("memory.current", "3000"), ("memory.stat", "anon 1\ninactive_file 500\n")):
        (tmp_path / name).write_text(text)
    assert free_bytes(tmp_path) == 2500
    (tmp_path / "memory.current").write_text("9000")
    assert free_bytes(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max")
    assert free_bytes(tmp_path) > 9000


def test_the_peak_is_the_most_that_was_held_since_the_reset() -> None:
    reset_peak(CPU)
    held = torch.ones(25_000_000)  # 100 MB
    most = resident_bytes()
    del held
    gc.collect()
    assert resident_bytes() < most - 50e6
    assert peak_bytes(CPU) >= most - 5e6


def test_what_is_free_is_that_of_the_machine_or_less() -> None:
    import psutil

    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_only_a_gpu_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 9000))
    assert free_device_bytes(torch.device("cuda", 0)) == 5000
    assert free_device_bytes(CPU) is None
