"""Joules that a GPU has taken, from its own counter: the whole board's, idle power included, the CPU's left out."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SHORTEST_S = 1.0  # the counter moves every 20 to 100 ms: what it says of less time is no measurement


def joules_so_far(device: torch.device) -> float | None:
    """What the GPU has taken since its driver was loaded; two readings make a measurement.

    None without the package nvidia-ml-py, on any other device, and where the GPU has no such counter (before Volta) or shares
    it with other slices (MIG).
    """
    if device.type != "cuda":
        return None
    import torch

    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            # by UUID, because CUDA_VISIBLE_DEVICES numbers the devices anew
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        finally:
            nvml.nvmlShutdown()
    except Exception:  # NVML's errors are classes of a package that may be missing; a counter less costs no run
        return None


class EnergyMeter:
    """What a GPU takes from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began, self._before = time.monotonic(), joules_so_far(device)

    def read(self) -> float | None:
        """Joules so far; None where nothing counts them, the time is too short for the counter, or it began anew meanwhile."""
        after = joules_so_far(self._device)
        if self._before is None or after is None or time.monotonic() - self._began < SHORTEST_S:
            return None
        return after - self._before if after > self._before else None
