"""Compiles net and loss as one function, with a trial before the first step and the eager function as the fallback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from arclight.hardware import GRAPH_MODES
from arclight.hardware.memory import is_out_of_memory
from arclight.metrics.predictions import all_gather

Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]

MAX_REASON_LENGTH = 400

log = logging.getLogger(__name__)


class CompiledLoss:
    """A loss of inputs and labels, compiled by torch.compile; `problem` is the reason if it is not compiled.

    The first batch is a trial of forward and backward. If it fails in any process, that is logged and all processes use the
    eager `loss`. The trial gives weights no gradient and restores buffers and random states. A failure that only a later shape
    causes leads to the eager loss from then on.

    With CUDA graphs, dropout follows the seed of each step: a graph reads the generator's seed when it is replayed, not when it
    is captured. A replay overwrites the output of the one before, so the loss is copied; gradients are used before that, unless
    they are accumulated.

    Source: CUDAGeneratorState::replay_prologue in torch's aten/src/ATen/cuda/CUDAGeneratorImpl.cpp;
    torch/_inductor/cudagraph_trees.py, format_dealloc_msg.
    """

    def __init__(self, net: nn.Module, loss: Loss, mode: str) -> None:
        self.mode = mode
        self.problem: str | None = None
        self._net, self._loss = net, loss
        self._function: Loss | None = None  # chosen in the first call

    @property
    def outcome(self) -> str:
        """The entry `compile` of results.json."""
        return "compiled" if self.problem is None else f"not compiled: {self.problem}"

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        if self._function is None:
            self._function = self._try_compiling(inputs, labels)
        try:
            return self._function(inputs, labels)
        except torch._dynamo.exc.TorchDynamoException as error:
            if is_out_of_memory(error) or self.problem is not None:
                raise
            self._function = self._fall_back(reason(error))
            return self._function(inputs, labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Returns None: compiled code belongs to the weights that it was compiled with, and a copy is not compiled."""
        return None

    def _try_compiling(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Loss:
        """Returns the function for all further calls."""
        function, problem = self._loss, ""
        has_graphs = captures_graphs(self.mode, labels.device)
        try:
            function = torch.compile(self._loss, mode=self.mode)
            if has_graphs:
                function = mark_steps(function)
            weights = [weight for weight in self._net.parameters() if weight.requires_grad]
            if any(isinstance(weight, DTensor) for weight in weights):
                return function  # a trial in one process would wait for the others to gather sharded weights
            with state_restored(self._net, labels.device):
                # with graphs the first call warms up, the second captures, the third is the first replay
                for _ in range(3 if has_graphs else 1):
                    torch.autograd.grad(function(inputs, labels), weights, allow_unused=True)
        except Exception as error:  # compilers fail in as many ways as there are layers
            if is_out_of_memory(error):
                raise
            log.info("the net could not be compiled", exc_info=True)
            problem = reason(error)
        problem = first_problem(problem)
        return self._fall_back(problem) if problem else function

    def _fall_back(self, problem: str) -> Loss:
        self.problem = problem
        log.warning("hardware.compile=%s failed, and training continues without it: %s", self.mode, problem)
        torch.compiler.reset()
        return self._loss


def captures_graphs(mode: str, device: torch.device) -> bool:
    """Returns whether this mode of torch.compile captures CUDA graphs on the device."""
    return mode in GRAPH_MODES and device.type == "cuda"


def mark_steps(compiled: Loss) -> Loss:
    """Returns the function with each call marked as a step for CUDA graphs, and an output that outlives the next step."""

    def call(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(inputs, labels).clone()

    return call


@contextmanager
def state_restored(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Context manager that restores the net's buffers and the random states of the CPU and this device."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    devices = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
            yield
    finally:
        torch.clear_autocast_cache()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def reason(error: BaseException) -> str:
    """Returns the class and first line of the innermost error."""
    while isinstance(inner := getattr(error, "inner_exception", None), BaseException):
        error = inner
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:MAX_REASON_LENGTH]


def first_problem(problem: str) -> str:
    """Returns the first problem of any process, or an empty string. A collective call: every process must make it."""
    texts = all_gather(torch.tensor([*problem.encode()], dtype=torch.uint8))
    return next((bytes(text.tolist()).decode() for text in texts if len(text)), "")
