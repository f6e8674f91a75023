"""Energy that a GPU uses, from its own counter: the whole board, idle power included, without the CPU. Experimental."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SHORTEST_S = 1.0  # the counter is updated every 20 to 100 ms


def total_joules(device: torch.device) -> float | None:
    """Returns the energy since the driver was loaded, in J.

    None without the package nvidia-ml-py, on other devices, and where the GPU has no such counter (before Volta) or shares it
    (MIG).
    """
    if device.type != "cuda":
        return None
    import torch

    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            # by UUID, because CUDA_VISIBLE_DEVICES renumbers the devices
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        finally:
            nvml.nvmlShutdown()
    except Exception:  # NVML's errors are classes of a package that may be missing, and no run fails for want of a counter
        return None


class EnergyMeter:
    """Measures the energy of a GPU from its creation on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start_s, self._start_j = time.monotonic(), total_joules(device)

    def read(self) -> float | None:
        """Returns the energy so far in J; None without a counter, after less than SHORTEST_S, or when the counter restarted."""
        now = total_joules(self._device)
        if self._start_j is None or now is None or time.monotonic() - self._start_s < SHORTEST_S:
            return None
        return now - self._start_j if now > self._start_j else None
