"""Net and loss as one compiled function, tried out before the first step, and as they are should that fail."""

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

Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]

LONGEST = 400  # bytes of a reason that the processes tell each other

log = logging.getLogger(__name__)


class CompiledLoss:
    """A loss that torch.compile makes faster; `problem` says why it is not compiled, or not any more.

    On the first batch it is compiled and tried out, forward and backward; if anything fails in that, in any process of the run,
    it is told and all go on with `loss` itself. The trial leaves no trace: weights get no gradient, buffers and random numbers
    are put back. What only a later shape makes fail is told and given up then.

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
        self.problem: str | None = None
        self._net, self._loss = net, loss
        self._function: Loss | None = None  # not chosen yet

    @property
    def outcome(self) -> str:
        """As results.json tells it."""
        return "compiled" if self.problem is None else f"not compiled: {self.problem}"

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        if self._function is None:
            self._function = self._try_out(inputs, labels)
        try:
            return self._function(inputs, labels)
        except torch._dynamo.exc.TorchDynamoException as error:
            if is_out_of_memory(error) or self.problem is not None:
                raise
            self._function = self._give_up(reason(error))
            return self._function(inputs, labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """None: what is compiled belongs to the weights that it was compiled with, and a copy goes on without."""
        return None

    def _try_out(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Loss:
        """What is called from now on."""
        function, problem = self._loss, ""
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
            if is_out_of_memory(error):
                raise
            log.info("the net could not be compiled", exc_info=True)
            problem = reason(error)
        problem = agree(problem, labels.device)
        return self._give_up(problem) if problem else function

    def _give_up(self, problem: str) -> Loss:
        """What is called instead."""
        self.problem = problem
        log.warning("hardware.compile=%s failed, and the run goes on without it: %s", self.mode, problem)
        torch.compiler.reset()
        return self._loss


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
        torch.clear_autocast_cache()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def reason(error: BaseException) -> str:
    """The kind and first line of what was wrong in the end."""
    while isinstance(inner := getattr(error, "inner_exception", None), BaseException):
        error = inner
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:LONGEST]


def agree(problem: str, device: torch.device) -> str:
    """The first problem that any process of the run has; empty where none has one. Every process must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return problem
    said = torch.zeros(LONGEST, dtype=torch.uint8, device=device)
    text = problem.encode()[:LONGEST]
    said[: len(text)] = torch.tensor([*text], dtype=torch.uint8)
    heard = [torch.empty_like(said) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(heard, said)
    problems = [bytes(one.tolist()).rstrip(b"\0").decode(errors="ignore") for one in heard]
    return next(filter(None, problems), "")
