from __future__ import annotations

import re

import pytest

from arclight.hardware.peaks import PEAKS, peak_flops


@pytest.mark.parametrize(
    ("name", "precision", "with_tf32", "tflops"),
    [
        ("NVIDIA H200", "bf16-mixed", False, 989.5),  # dense: Lightning 2.6.6 has the figure for sparse matrices
        ("NVIDIA H200", "32-true", True, 494.7),
        ("NVIDIA H200", "32-true", False, 67),
        ("NVIDIA H100 80GB HBM3", "bf16-true", False, 989.5),
        ("NVIDIA H100 PCIe", "16-mixed", True, 756),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", False, 312),
        ("Tesla V100-SXM2-16GB", "32-true", True, 15.7),  # no TF32 before Ampere: plain fp32
        ("Tesla V100-SXM2-16GB", "bf16-mixed", True, None),
        ("NVIDIA H200", "64-true", True, None),
        ("NVIDIA H200", "transformer-engine", True, None),
        ("NVIDIA GH200 480GB", "bf16-mixed", False, None),  # another device whose name holds a known one
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16-mixed", False, None),  # a slice of one
        ("NVIDIA L40", "bf16-mixed", False, 181),
        ("NVIDIA L40S", "bf16-mixed", False, 362),
        ("AMD EPYC 7763", "32-true", False, None),
    ],
)
def test_a_peak_is_known_for_certain_or_not_at_all(name: str, precision: str, with_tf32: bool, tflops: float | None) -> None:
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert peak_flops(name, precision, with_tf32=with_tf32) == expected


def test_no_name_has_two_peaks() -> None:
    names = [re.sub(r"\((\w+)\|\w+\)|\[(\w)\w*\]", r"\1\2", pattern) for pattern in PEAKS]
    for name in names:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in PEAKS) == 1, name
