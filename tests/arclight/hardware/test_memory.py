"""Memory is counted as the system counts it, and an out-of-memory error says what to change."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from arclight.errors import InputError
from arclight.hardware.memory import (
    free_bytes,
    free_device_bytes,
    is_out_of_memory,
    peak_bytes,
    report_out_of_memory,
)

CPU = torch.device("cpu")


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Makes `peak_bytes` count from here, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark VmHWM


CUDA_MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 79 GiB of which 1 GiB is free.\nSee"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA_MESSAGE),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_an_out_of_memory_error_says_what_to_change(error: RuntimeError) -> None:
    message = (
        "(?s)a training step does not fit the device's memory .*data.max_batch_per_device=N, which computes N samples .*"
        "half of it, then a quarter.*these need less memory, too: precision=bf16"
    )
    with pytest.raises(InputError, match=message) as raised, report_out_of_memory():
        raise error
    assert raised.value.__cause__ is error
    assert "GPU 0" not in str(raised.value)


def test_the_real_error_of_torch_is_recognized() -> None:
    with pytest.raises(InputError, match="does not fit the device's memory"), report_out_of_memory():
        torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_raised_unchanged(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)) as raised, report_out_of_memory():
        raise error
    assert raised.value is error


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    machine = free_bytes(tmp_path)
    assert machine > 0
    for name, text in (("memory.max", "5000"), ("memory.current", "3000"), ("memory.stat", "anon 1\ninactive_file 500\n")):
        (tmp_path / name).write_text(text)
    assert free_bytes(tmp_path) == 2500
    (tmp_path / "memory.current").write_text("9000")
    assert free_bytes(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max")
    assert free_bytes(tmp_path) > 9000


def test_the_peak_is_the_largest_since_the_reset() -> None:
    reset_peak()
    held = torch.ones(25_000_000)  # 100 MB
    most = resident_bytes()
    del held
    gc.collect()
    assert resident_bytes() < most - 50e6
    assert peak_bytes(CPU) >= most - 5e6


def test_free_memory_is_at_most_that_of_the_machine() -> None:
    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_only_a_gpu_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 9000))
    assert free_device_bytes(torch.device("cuda", 0)) == 5000
    assert free_device_bytes(CPU) is None
