"""The peaks of this machine are measured, and every unavailable precision comes with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arclight import hardware
from arclight.errors import InputError
from arclight.hardware import peak_measurement
from arclight.hardware.peak_measurement import (
    MeasuredPeaks,
    choose_device,
    device_name,
    float32_precision,
    largest,
    measure_peaks,
    unavailable_precisions,
)

CPU = torch.device("cpu")


def test_the_peaks_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})
    monkeypatch.setattr(peak_measurement, "BLOCK_S", 0.001)
    hardware_info = hardware.HardwareInfo(num_cores=2, memory_bytes=2**30)
    measured = measure_peaks(CPU, hardware_info)
    assert set(measured.flops) == {name for name, why in unavailable_precisions(CPU, hardware_info).items() if why is None}
    assert measured.flops["fp32"] > 0
    assert measured.copy_bytes_per_s > 0


def test_the_largest_of_several_measurements_counts() -> None:
    first = MeasuredPeaks("cpu", "CPU", 2, {"fp32": 3.0, "bf16": 1.0}, 7.0)
    second = MeasuredPeaks("cpu", "CPU", 2, {"fp32": 2.0, "bf16": 5.0}, 9.0)
    assert largest([first, second]) == MeasuredPeaks("cpu", "CPU", 2, {"fp32": 3.0, "bf16": 5.0}, 9.0)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_float32_settings_are_restored(precision: str) -> None:
    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = settings()
    with float32_precision(precision):
        assert settings() == (("high", True) if precision == "tf32" else ("highest", False))
    assert settings() == before


def test_what_a_cpu_does_not_have_comes_with_a_reason() -> None:
    old, new = (hardware.HardwareInfo(1, 2**30, instruction_sets=sets) for sets in ((), ("avx512_bf16", "amx_fp16")))
    assert unavailable_precisions(CPU, old)["bf16"] == "this CPU has no instructions for it"
    assert unavailable_precisions(CPU, old)["fp16"] == "this CPU has no instructions for it"
    assert unavailable_precisions(CPU, new)["bf16"] is unavailable_precisions(CPU, new)["fp16"] is None
    assert unavailable_precisions(CPU, new)["tf32"] == "needs an NVIDIA Ampere or newer GPU"


@pytest.mark.parametrize(
    ("capability", "available"),
    [((6, 1), {"fp32"}), ((7, 5), {"fp32", "fp16"}), ((9, 0), {"fp32", "tf32", "bf16", "fp16"})],
)
def test_what_a_gpu_does_not_have_comes_with_a_reason(
    capability: tuple[int, int], available: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    reasons = unavailable_precisions(torch.device("cuda"), hardware.HardwareInfo(num_cores=1, memory_bytes=1))
    assert {name for name, reason in reasons.items() if reason is None} == available
    assert all(f"{capability[0]}.{capability[1]} is below" in reason for reason in reasons.values() if reason is not None)


def test_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(InputError, match="--device cuda: torch finds no GPU on this machine. Try: --device cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu") == CPU


def test_the_name_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t: a b\n")
    assert device_name(CPU, tmp_path) == f"Some CPU, {torch.get_num_threads()} threads"
    assert device_name(CPU, tmp_path / "nothing").endswith(" threads")
