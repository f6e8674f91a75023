"""Peak FLOP/s of a device for dense matrix products: measured, else from Lightning's table, corrected; else unknown."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Names for which Lightning 2.6.6 finds the dense figures of the right device. Its search by part of the name also gives the L40
# those of the L4, and a MIG slice those of the whole GPU.
IN_LIGHTNING = (
    r"NVIDIA (H100 80GB HBM3|H100 PCIe|A100-(SXM4|PCIE)-[48]0GB|A100 80GB PCIe|L4)|Tesla (T4|V100-(SXM2|PCIE)-(16|32)GB)"
)
# TFLOP/s of fp16 and bf16, TF32, and fp32 for devices that Lightning does not know or lists with figures for sparse matrices
# (twice as much). Source: NVIDIA's data sheets of these GPUs; TF32 of the H200 is that of the H100's white paper.
CORRECTED = {
    "NVIDIA B200": (2250, 1100, 75),
    "NVIDIA H200": (989.5, 494.7, 67),
    "NVIDIA H200 NVL": (835.5, 417.5, 60),
    "NVIDIA H100 NVL": (835.5, 417.5, 60),
    "NVIDIA A30": (165, 82, 10.3),
    "NVIDIA A40": (149.7, 74.8, 37.4),
    "NVIDIA A10": (125, 62.5, 31.2),
    "NVIDIA L40": (181, 90.5, 90.5),
    "NVIDIA L40S": (362, 183, 91.6),
}


def peak_flops(device: torch.device, precision: str, measured: Mapping[str, float] | None = None) -> float | None:
    """Returns the peak FLOP/s of a device under torch's present matmul precision, None if unknown.

    Args:
        device: CPUs and Apple GPUs have a peak only if it was measured.
        precision: Lightning's name, such as "bf16-mixed".
        measured: FLOP/s by "fp32", "tf32", "bf16" and "fp16", as `peak_measurement.measure_peaks` returns.
    """
    import torch
    from lightning.fabric.utilities.throughput import get_available_flops

    short = {"16": "fp16", "bf16": "bf16", "32": "fp32"}.get(precision.partition("-")[0])
    if short is None:
        return None
    allows_tf32 = torch.get_float32_matmul_precision() != "highest"
    if short == "fp32" and allows_tf32 and measured and "tf32" in measured:
        short = "tf32"
    if measured and short in measured:
        return measured[short]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if name in CORRECTED:
        half, tf32, fp32 = CORRECTED[name]
        return 1e12 * (half if short != "fp32" else tf32 if allows_tf32 else fp32)
    if not re.fullmatch(IN_LIGHTNING, name):
        return None
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[short]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bf16 of a GPU without it
        return get_available_flops(device, dtype)  # decides on TF32 by itself
