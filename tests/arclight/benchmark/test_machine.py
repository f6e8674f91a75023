"""The machine's limits are measured, and what it lacks is said."""

from __future__ import annotations

import types
import typing
from pathlib import Path

import pytest
import torch

from arclight import hardware
from arclight.benchmark import machine
from arclight.benchmark.machine import choose_device, device_name, measure_machine, precisions
from arclight.errors import InputError

CPU = torch.device("cpu")


def test_the_limits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(machine, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(machine, "NUM_IMAGES", {"cpu": 1})
    monkeypatch.setattr(machine, "BLOCK_S", 0.001)
    hardware_info = hardware.HardwareInfo(num_cores=2, memory_bytes=2**30)
    measured = measure_machine(CPU, hardware_info)
    assert set(measured.flops) == {name for name, reason in precisions(CPU, hardware_info).items() if reason is None}
    assert measured.flops["fp32"] > 0
    assert measured.copy_bytes_per_s > 0


def test_what_a_cpu_lacks_is_said() -> None:
    old, new = (typing.cast("hardware.Facts", types.SimpleNamespace(has_fast_bf16_cpu=fast)) for fast in (False, True))
    assert precisions(CPU, old)["bf16"] == "this CPU emulates it, hundreds of times slower than fp32"
    assert precisions(CPU, new)["bf16"] is None
    assert precisions(CPU, new)["tf32"] == "a mode of NVIDIA's tensor cores"


@pytest.mark.parametrize(
    ("capability", "there"),
    [((6, 1), {"fp32"}), ((7, 5), {"fp32", "fp16"}), ((9, 0), {"fp32", "tf32", "bf16", "fp16"})],
)
def test_what_a_gpu_lacks_is_said(capability: tuple[int, int], there: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    reasons = precisions(torch.device("cuda"), hardware.HardwareInfo(num_cores=1, memory_bytes=1))
    assert {name for name, reason in reasons.items() if reason is None} == there
    assert all(f"{capability[0]}.{capability[1]}; it wants" in reason for reason in reasons.values() if reason is not None)


def test_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(InputError, match="--device cuda: this machine has no GPU that torch can use; take --device cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu") == CPU


def test_the_name_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t: a b\n")
    assert device_name(CPU, tmp_path / "cpuinfo") == f"Some CPU, {torch.get_num_threads()} threads"
    assert device_name(CPU, tmp_path / "nothing").endswith(" threads")
