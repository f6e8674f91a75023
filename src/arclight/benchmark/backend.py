"""Switches of torch and its libraries that change speed and not what is computed, apart from rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from arclight.hardware.peak_measurement import PRECISIONS, float32_precision


@dataclass(frozen=True)
class Backend:
    """One combination of the switches; the defaults are the plain setting, that which needs nothing from anyone.

    Args:
        precision: one of PRECISIONS. fp32 is float32 throughout; torch's own default lets convolutions take TF32.
        cudnn: whether convolutions are cuDNN's.
        cudnn_benchmark: whether cuDNN tries its algorithms out for each new shape.
        channels_last: whether images and filters lie in memory channel by channel of each pixel.
        compile: whether the net is compiled.
    """

    precision: str = "fp32"
    cudnn: bool = True
    cudnn_benchmark: bool = False
    channels_last: bool = False
    compile: bool = False

    @property
    def name(self) -> str:
        """What differs from the plain setting."""
        parts = [self.precision] if self.precision != "fp32" else []
        parts += ["cudnn off"] if not self.cudnn else []
        parts += [switch.replace("_", " ") for switch in SWITCHES if getattr(self, switch)]
        return " + ".join(parts) or "plain"


SWITCHES = ("cudnn_benchmark", "channels_last", "compile")


@contextmanager
def applied(backend: Backend) -> Iterator[None]:
    """Inside, the switches that are one for the whole process stand as the backend says; afterwards as before."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    cudnn.enabled, cudnn.benchmark = backend.cudnn, backend.cudnn_benchmark
    try:
        with float32_precision(allow_tf32=PRECISIONS[backend.precision].has_tf32):
            yield
    finally:
        cudnn.enabled, cudnn.benchmark = before


def autocast(backend: Backend, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the forward pass runs, as Lightning's mixed precision has it."""
    dtype = PRECISIONS[backend.precision].dtype
    if dtype == torch.float32:
        return nullcontext()
    made: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype, cache_enabled=False)
    return made
