"""A peak is known for certain, or unknown."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.accelerators import cuda

from arclight.hardware.peak_measurement import CORRECTED, IN_LIGHTNING, known_peak_flops

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "precision", "matmul_precision", "tflops"),
    [
        ("NVIDIA H200", "bf16-mixed", "highest", 989.5),  # dense: Lightning 2.6.6 has the figure for sparse matrices
        ("NVIDIA H200", "32-true", "high", 494.7),
        ("NVIDIA H200", "32-true", "highest", 67),
        ("NVIDIA H100 80GB HBM3", "bf16-true", "highest", 989.4),
        ("NVIDIA H100 80GB HBM3", "32-true", "high", 494.7),
        ("NVIDIA H100 PCIe", "16-mixed", "high", 756),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", "highest", 312),
        ("NVIDIA L4", "bf16-mixed", "highest", 121),
        ("Tesla T4", "16-mixed", "highest", 65),
        ("Tesla V100-SXM2-16GB", "32-true", "high", 15.7),  # no TF32 before Ampere
        ("Tesla V100-SXM2-16GB", "bf16-mixed", "high", None),
        ("NVIDIA H200", "64-true", "high", None),
        ("NVIDIA H200", "transformer-engine", "high", None),
        ("NVIDIA GH200 480GB", "bf16-mixed", "highest", None),  # another device whose name contains a known one
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16-mixed", "highest", None),  # a slice of one
        ("NVIDIA RTX A4000", "bf16-mixed", "highest", None),  # Lightning takes it for an A40
        ("NVIDIA L40", "bf16-mixed", "highest", 181),  # Lightning takes it for an L4
        ("NVIDIA L40S", "bf16-mixed", "highest", 362),
    ],
)
def test_a_peak_is_known_for_certain_or_not_at_all(
    name: str, precision: str, matmul_precision: str, tflops: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: matmul_precision)
    monkeypatch.setattr(cuda, "_is_ampere_or_later", lambda: "V100" not in name)
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert known_peak_flops(GPU, precision) == expected


def test_the_peak_of_a_cpu_is_unknown() -> None:
    assert known_peak_flops(torch.device("cpu"), "32-true") is None


def test_corrected_names_are_not_in_lightning() -> None:
    import re

    assert not [name for name in CORRECTED if re.fullmatch(IN_LIGHTNING, name)]
