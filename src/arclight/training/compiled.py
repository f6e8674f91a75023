"""Net and loss as one compiled function, tried out before the first step, and as they are should that fail."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from arclight.hardware import GRAPH_MODES

Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]

_log = logging.getLogger(__name__)


class CompiledLoss:
    """A loss that torch.compile makes faster.

    On the first batch it is compiled and tried out, forward and backward; if anything fails in that, it is told and the run
    goes on with `loss` itself. The trial leaves no trace: weights get no gradient, buffers and random numbers are put back.

    With CUDA graphs, dropout draws in each step what the seed of that step says: a graph reads the seed of torch's own
    generator when it is replayed, not when it is captured. What a graph gives is overwritten by its next replay, so the loss
    is copied; gradients are used and dropped before that, unless they are added up over parts of a batch.

    Source: CUDAGeneratorState::replay_prologue in torch's aten/src/ATen/cuda/CUDAGeneratorImpl.cpp;
    torch/_inductor/cudagraph_trees.py, format_dealloc_msg.

    Args:
        net: whose weights learn.
        loss: of inputs and labels.
        mode: of torch.compile.
    """

    def __init__(self, net: nn.Module, loss: Loss, mode: str) -> None:
        self.mode = mode
        self._net, self._loss = net, loss
        self._function: Loss | None = None  # not chosen yet

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        if self._function is None:
            self._function = self._try_out(inputs, labels)
        return self._function(inputs, labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """None: what is compiled belongs to the weights that it was compiled with, and a copy goes on without."""
        return None

    def _try_out(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Loss:
        """What is called from now on."""
        try:
            compiled: Loss = torch.compile(self._loss, mode=self.mode)
            has_graphs = captures(self.mode, labels.device)
            function = stepwise(compiled) if has_graphs else compiled
            weights = [weight for weight in self._net.parameters() if weight.requires_grad]
            if any(isinstance(weight, DTensor) for weight in weights):
                return function  # weights in parts, of which the others must know when they are gathered
            with kept(self._net, labels.device):
                # with graphs the first call warms up, the second captures, the third is the first replay
                for _ in range(3 if has_graphs else 1):
                    torch.autograd.grad(function(inputs, labels), weights, allow_unused=True)
        except Exception as error:  # compilers fail in as many ways as there are layers
            reason = textwrap.shorten(str(error).strip().split("\n")[0], 250) or type(error).__name__
            _log.warning("hardware.compile=%s failed, and the run goes on without it: %s", self.mode, reason)
            torch.compiler.reset()
            return self._loss
        return function


def captures(mode: str, device: torch.device) -> bool:
    """Whether this mode of torch.compile captures graphs on the device."""
    return mode in GRAPH_MODES and device.type == "cuda"


def stepwise(compiled: Loss) -> Loss:
    """The same for functions that are captured: each call begins a step, and what it gives outlives the next."""

    def call(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(inputs, labels).clone()

    return call


@contextmanager
def kept(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards the net's buffers and the random numbers of the CPU and this device are as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    devices = [] if device.type == "cpu" else [device]
    kind = {} if device.type == "cpu" else {"device_type": device.type}
    try:
        with torch.random.fork_rng(devices, **kind):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
