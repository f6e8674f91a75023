"""A net compiled where that works: what goes wrong is told, and every process of the run goes on with the net as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from arclight.memory import is_out_of_memory

log = logging.getLogger(__name__)

LONGEST = 400  # bytes of a reason that the processes tell each other


class Compilation:
    """Compiles `net` in place, so that the names of its weights stay; `problem` says why it is not compiled any more.

    Compilers run when a net is first called. That call is tried beforehand, forward and backward, without a trace in weights,
    buffers and chance; then the processes agree, so that a run with a problem is that of the net as it is from its first step.
    Training and evaluation are tried apart. What only fails later, for another shape, is told and left out by itself.

    Args:
        net: any.
        backend: of torch.compile: a name, or what turns a graph into a function.
    """

    def __init__(self, net: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
        self.problem: str | None = None
        self._net = net
        self._backend = backend
        self._tried: set[tuple[bool, bool]] = set()
        self._is_trial = False
        self._compiled = torch.compile(net._call_impl, backend=self._compile_graph)
        net._compiled_call_impl = lambda *given, **named: self._call(given, named)  # as nn.Module.compile does

    @property
    def outcome(self) -> str:
        """As results.json tells it."""
        return "compiled" if self.problem is None else f"not compiled: {self.problem}"

    def _call(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        mode = (self._net.training, torch.is_grad_enabled())
        if self.problem is None and mode not in self._tried:
            self._tried.add(mode)
            if problem := agree(self._try(given, named), next(self._net.parameters()).device):
                self._tell(problem)
        if self.problem is None:
            return self._compiled(*given, **named)
        self._net._compiled_call_impl = None
        return self._net(*given, **named)

    def _try(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> str:
        """Why this call cannot be compiled; empty where it can. All is as before afterwards."""
        parameters = [parameter for parameter in self._net.parameters() if parameter.requires_grad]
        device = next(self._net.parameters()).device
        buffers = [(buffer, buffer.clone()) for buffer in self._net.buffers()]
        is_spread = any(isinstance(parameter, DTensor) for parameter in parameters)
        self._is_trial = True
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                logits = self._compiled(*given, **named)
                # spread weights collect gradients as soon as one is computed
                if isinstance(logits, Tensor) and logits.requires_grad and not is_spread:
                    torch.autograd.grad(logits.float().sum(), parameters, allow_unused=True)
        except Exception as error:  # compilers raise whatever they come upon
            if is_out_of_memory(error):
                raise
            log.info("the net could not be compiled", exc_info=True)
            return reason(error)
        finally:
            self._is_trial = False
            torch.clear_autocast_cache()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        return ""

    def _compile_graph(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """A part of the net, compiled; or as it is where that fails after it has once worked."""
        from torch._dynamo import lookup_backend

        backend: Any = lookup_backend(self._backend) if isinstance(self._backend, str) else self._backend
        try:
            return backend(graph, inputs)
        except Exception as error:  # as above
            if self._is_trial or is_out_of_memory(error):
                raise
            self._tell(reason(error))
            return graph.forward

    def _tell(self, problem: str) -> None:
        self.problem = problem
        log.warning(
            "the net could not be compiled (%s); training goes on without, as fast as hardware.compile=false; train.log has "
            "all that was said",
            problem,
        )


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
