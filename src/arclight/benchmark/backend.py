"""Switches of torch and its libraries that change speed and not what is computed, apart from rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Precision(NamedTuple):
    """`dtype` of what is multiplied, `has_tf32` whether float32 may be cut to TF32 for it."""

    dtype: torch.dtype
    has_tf32: bool = False


PRECISIONS = {
    "fp32": Precision(torch.float32),
    "tf32": Precision(torch.float32, has_tf32=True),
    "bf16": Precision(torch.bfloat16),
    "fp16": Precision(torch.float16),
}


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
    before = torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32
    has_tf32 = PRECISIONS[backend.precision].has_tf32
    torch.set_float32_matmul_precision("high" if has_tf32 else "highest")
    cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32 = backend.cudnn, backend.cudnn_benchmark, has_tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32 = before[1:]


def autocast(backend: Backend, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the forward pass runs, as Lightning's mixed precision has it."""
    dtype = PRECISIONS[backend.precision].dtype
    if dtype == torch.float32:
        return nullcontext()
    made: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype, cache_enabled=False)
    return made
