from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import arclight
from arclight.training.compilation import LONGEST, Compilation, agree, reason
from tests.test_checkpoint import TINY_IMAGES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


class Net(nn.Module):
    """With chance and with buffers that each pass in training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)  # type: ignore[no-any-return]


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def passes(net: nn.Module, sizes: tuple[int, ...] = (4, 4)) -> list[Tensor]:
    """Outputs, gradients and buffers of a training pass on each size, and outputs of an evaluation."""
    torch.manual_seed(1)
    seen = []
    for size in sizes:
        out = net(torch.rand(size, 3))
        out.square().sum().backward()
        seen += [out, *(parameter.grad.clone() for parameter in net.parameters()), *(b.clone() for b in net.buffers())]  # type: ignore[union-attr]
    net.eval()
    with torch.no_grad():
        return [*seen, net(torch.rand(5, 3))]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def plain(graph: Any, inputs: Any) -> Callable[..., Any]:
    return graph.forward  # type: ignore[no-any-return]


def broken(graph: Any, inputs: Any) -> Callable[..., Any]:
    raise RuntimeError("no compiler\nand more")


def test_what_can_be_compiled_is_and_the_trial_leaves_no_trace() -> None:
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return plain(graph, inputs)

    compiled = net()
    names = list(compiled.state_dict())
    compilation = Compilation(compiled, count)
    assert same(passes(compiled), passes(net()))
    assert len(graphs) == 2  # training and evaluation
    assert list(compiled.state_dict()) == names
    assert compilation.outcome == "compiled"


def test_a_compile_that_fails_falls_back_and_names_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    fallen = net()
    compilation = Compilation(fallen, broken)
    assert same(passes(fallen), passes(net()))
    assert compilation.outcome == "not compiled: RuntimeError: no compiler"
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        "the net could not be compiled (RuntimeError: no compiler); training goes on without, as fast as "
        "hardware.compile=false; train.log has all that was said"
    ]


def test_a_backward_pass_that_cannot_be_compiled_falls_back_too() -> None:
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    forward = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=broken)
    fallen = net()
    compilation = Compilation(fallen, forward)
    assert same(passes(fallen), passes(net()))
    assert compilation.problem == "RuntimeError: no compiler"


def test_what_fails_only_in_evaluation_falls_back_there() -> None:
    def trains(graph: Any, inputs: Any) -> Callable[..., Any]:
        return plain(graph, inputs) if torch.is_grad_enabled() else broken(graph, inputs)

    fallen = net()
    compilation = Compilation(fallen, trains)
    assert same(passes(fallen), passes(net()))
    assert compilation.problem == "RuntimeError: no compiler"


def test_what_fails_only_for_a_later_shape_is_left_out_then(caplog: pytest.LogCaptureFixture) -> None:
    graphs: list[Any] = []

    def once(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return plain(graph, inputs) if len(graphs) == 1 else broken(graph, inputs)

    fallen = net()
    compilation = Compilation(fallen, once)
    assert same(passes(fallen, (4, 7, 4)), passes(net(), (4, 7, 4)))
    assert compilation.problem == "RuntimeError: no compiler"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_memory_that_is_not_there_is_no_fault_of_the_compiler() -> None:
    def large(graph: Any, inputs: Any) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return run

    full = net()
    compilation = Compilation(full, large)
    with pytest.raises(torch.OutOfMemoryError):
        full(torch.rand(4, 3))
    assert compilation.problem is None


def test_a_copy_is_not_compiled() -> None:
    compiled = net()
    Compilation(compiled, broken)
    assert copy.deepcopy(compiled)(torch.rand(4, 3)).shape == (4, 2)


def test_a_reason_is_the_innermost_one_in_a_line() -> None:
    outer = RuntimeError("backend raised")
    outer.inner_exception = ValueError("\n  C++ compile error\nCommand: g++")  # type: ignore[attr-defined]
    assert reason(outer) == "ValueError: C++ compile error"
    assert reason(KeyError()) == "KeyError"
    assert len(reason(RuntimeError("x" * 1000))) == LONGEST


@pytest.mark.parametrize(("problems", "agreed"), [(["", ""], ""), (["", "Ä: b"], "Ä: b"), (["a", "b"], "a")])
def test_processes_agree_on_the_first_problem_of_any(problems: list[str], agreed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Tensor] = []

    def gather(heard: list[Tensor], own: Tensor) -> None:
        said.append(own.clone())
        for place, one in zip(heard, said, strict=False):
            place.copy_(one)
        for place in heard[len(said) :]:
            place.zero_()

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", gather)
    heard = [agree(problem, CPU) for problem in problems]
    assert heard[-1] == agreed


def test_another_process_s_problem_ends_compiling_here(monkeypatch: pytest.MonkeyPatch) -> None:
    fallen = net()
    compilation = Compilation(fallen, plain)
    monkeypatch.setattr("arclight.training.compilation.agree", lambda problem, device: "no compiler there")
    assert same(passes(fallen), passes(net()))
    assert compilation.outcome == "not compiled: no compiler there"


def test_a_run_whose_compile_fails_ends_well_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda name: broken)
    fallen = arclight.run([*TINY_IMAGES, "precision=fp32", "trainer.max_epochs=1", "hardware.compile=true"])
    assert fallen.results["status"] == "finished"
    assert fallen.results["compile"] == "not compiled: RuntimeError: no compiler"
    assert "the net could not be compiled (RuntimeError: no compiler)" in (fallen.folder / "train.log").read_text()
