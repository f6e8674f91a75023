"""What known GPUs can multiply at most, as their makers state it for dense matrices; of any other device nothing is claimed."""

from __future__ import annotations

import re

# TFLOP/s of fp16, bf16, TF32 (with sums in fp32) and of plain fp32, by what torch calls the device; None where it has none.
# Source: NVIDIA's data sheets "HGX B200", "H200", "H100", "A100", "A30", "A40", "A10", "L4", "L40", "L40S", "V100" and "T4".
# What those of Blackwell, Hopper, L4 and L40S print is mostly for sparse matrices, twice as much: halved here. TF32 of H100
# and H200 SXM is that of the white paper "NVIDIA H100 Tensor Core GPU Architecture", which their sheets round.
PEAKS = {
    r"NVIDIA B200": (2250, 2250, 1100, 75),
    r"NVIDIA H200": (989.5, 989.5, 494.7, 67),
    r"NVIDIA H100 80GB HBM3": (989.5, 989.5, 494.7, 67),
    r"NVIDIA H[12]00 NVL": (835.5, 835.5, 417.5, 60),
    r"NVIDIA H100 PCIe": (756, 756, 378, 51),
    r"NVIDIA A100-(SXM4|PCIE)-[48]0GB": (312, 312, 156, 19.5),
    r"NVIDIA A100 80GB PCIe": (312, 312, 156, 19.5),
    r"NVIDIA A30": (165, 165, 82, 10.3),
    r"NVIDIA A40": (149.7, 149.7, 74.8, 37.4),
    r"NVIDIA A10": (125, 125, 62.5, 31.2),
    r"NVIDIA L4": (121, 121, 60, 30.3),
    r"NVIDIA L40": (181, 181, 90.5, 90.5),
    r"NVIDIA L40S": (362, 362, 183, 91.6),
    r"Tesla V100-SXM2-(16|32)GB": (125, None, None, 15.7),
    r"Tesla T4": (65, None, None, 8.1),
}


def peak_flops(name: str, precision: str, *, with_tf32: bool) -> float | None:
    """FLOP/s of dense matrix products on the device; None where they are not known for certain.

    Args:
        name: what torch calls the device, such as "NVIDIA H200". A slice of one (MIG) has a name, and a peak, of its own.
        precision: of the training, by Lightning's name, such as "bf16-mixed".
        with_tf32: whether fp32 products may use TF32.
    """
    columns = {"16": 0, "bf16": 1, "32": 2 if with_tf32 else 3}
    column = columns.get(precision.partition("-")[0])
    if column is None:
        return None
    for pattern, peaks in PEAKS.items():
        if re.fullmatch(pattern, name):
            peak = peaks[column]
            if peak is None and column == 2:  # older than TF32: its fp32 products are plain
                peak = peaks[3]
            return None if peak is None else peak * 1e12
    return None
