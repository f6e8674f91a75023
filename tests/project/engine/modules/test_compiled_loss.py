"""A compiled loss: its trial, its fallback, its steps with CUDA graphs."""

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
from arclight.modules import compiled_loss as module
from arclight.modules.compiled_loss import MAX_REASON_LENGTH, CompiledLoss, captures_graphs, first_problem, reason
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

IMAGES, LABELS = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])


class Net(nn.Module):
    """Has all that a trial could change: batch statistics, dropout, weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretends to be a GPU; returns the steps that were marked for its graphs."""
    marked: list[int] = []
    monkeypatch.setattr(module, "captures_graphs", lambda mode, device: captures_graphs(mode, torch.device("cuda")))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(1))
    return marked


def made() -> tuple[Net, Callable[..., Tensor]]:
    torch.manual_seed(0)
    net = Net()
    return net, lambda inputs, labels: nn.functional.cross_entropy(net(*inputs), labels)


def compiled_as(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> list[str]:
    modes: list[str] = []

    def compile_(function: Any, mode: str) -> Any:
        modes.append(mode)
        return make(function)

    monkeypatch.setattr(torch, "compile", compile_)
    return modes


@pytest.mark.parametrize(("mode", "num_trials"), [("default", 1), ("reduce-overhead", 3), ("max-autotune", 3)])
def test_a_trial_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, steps: list[int], mode: str, num_trials: int) -> None:
    calls: list[int] = []
    modes = compiled_as(monkeypatch, lambda function: lambda *given: (calls.append(1), function(*given))[1])
    net, loss = made()
    other, plain = made()
    compiled = CompiledLoss(net, loss, mode)
    for _ in range(3):
        torch.manual_seed(1)
        value, expected = compiled((IMAGES,), LABELS), plain((IMAGES,), LABELS)
        torch.manual_seed(1)
        torch.testing.assert_close(value, compiled((IMAGES,), LABELS), rtol=0, atol=0)
        plain((IMAGES,), LABELS)
        assert value.item() != expected.item()  # each continues the random numbers of the other
    assert modes == [mode]
    assert len(calls) == num_trials + 6
    assert len(steps) == (0 if mode == "default" else 9)
    assert all(weight.grad is None for weight in net.parameters())
    assert torch.equal(net.layers[0].running_mean, other.layers[0].running_mean)
    assert net.layers[0].num_batches_tracked == other.layers[0].num_batches_tracked == 6


@pytest.mark.parametrize("when", ["compile", "forward", "backward", "replay"])
@pytest.mark.usefixtures("steps")
def test_a_failing_trial_falls_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str) -> None:
    calls: list[int] = []

    def fail(*given: Any) -> Any:
        raise RuntimeError("no kernel for this\nand a stack")

    def make(function: Any) -> Any:
        if when == "compile":
            fail()

        def call(*given: Any) -> Any:
            calls.append(1)
            if when == "forward" or (when == "replay" and len(calls) == 3):
                fail()
            value = function(*given)
            if when == "backward":
                value.register_hook(fail)
            return value

        return call

    compiled_as(monkeypatch, make)
    net, loss = made()
    other, plain = made()
    compiled = CompiledLoss(net, loss, "reduce-overhead")
    for _ in range(2):
        torch.manual_seed(1)
        value = compiled((IMAGES,), LABELS)
        torch.manual_seed(1)
        assert torch.equal(value, plain((IMAGES,), LABELS))
        value.backward()
    assert torch.equal(net.layers[0].running_mean, other.layers[0].running_mean)
    expected = "hardware.compile=reduce-overhead failed, and training continues without it: RuntimeError: no kernel for this"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [expected]
    assert compiled.outcome == "not compiled: RuntimeError: no kernel for this"
    assert len(calls) == {"compile": 0, "forward": 1, "backward": 1, "replay": 3}[when]


def test_a_loss_outlives_the_next_step(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    memory = torch.zeros(())  # of the graph

    def overwrite(function: Any) -> Any:
        return lambda *given: function(*given) if len(steps) <= 3 else memory.copy_(function(*given).detach())

    compiled_as(monkeypatch, overwrite)
    net, loss = made()
    compiled = CompiledLoss(net.eval(), loss, "reduce-overhead")
    value = compiled((IMAGES,), LABELS)
    expected = value.item()
    compiled((IMAGES + 1,), LABELS)
    assert memory.item() != expected
    assert value.item() == expected


def test_only_gpus_have_graphs() -> None:
    assert captures_graphs("reduce-overhead", torch.device("cuda"))
    assert not captures_graphs("reduce-overhead", torch.device("cpu"))
    assert not captures_graphs("max-autotune-no-cudagraphs", torch.device("cuda"))


def test_a_copy_of_a_module_is_not_compiled() -> None:
    assert copy.deepcopy({"loss": CompiledLoss(*made(), "default")}) == {"loss": None}


def backend(monkeypatch: pytest.MonkeyPatch, compile_graph: Callable[..., Any]) -> None:
    """Replaces Inductor."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode: compile_(function, backend=compile_graph))
    torch._dynamo.reset()


def test_a_later_shape_that_fails_falls_back_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    graphs: list[Any] = []

    def once(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        if len(graphs) > 1:
            raise RuntimeError("no compiler\nand more")
        return graph.forward

    backend(monkeypatch, once)
    net, loss = made()
    _, plain = made()
    compiled = CompiledLoss(net, loss, "default")
    for size in (4, 3, 4):
        torch.manual_seed(1)
        value = compiled((IMAGES[:size],), LABELS[:size])
        torch.manual_seed(1)
        torch.testing.assert_close(value, plain((IMAGES[:size],), LABELS[:size]))
    assert compiled.problem == "RuntimeError: no compiler"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_out_of_memory_is_not_blamed_on_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    compiled_as(monkeypatch, lambda function: fail)
    compiled = CompiledLoss(*made(), "default")
    with pytest.raises(torch.OutOfMemoryError):
        compiled((IMAGES,), LABELS)
    assert compiled.problem is None


def test_a_reason_is_the_innermost_one_in_a_line() -> None:
    outer = RuntimeError("backend raised")
    outer.inner_exception = ValueError("\n  C++ compile error\nCommand: g++")  # type: ignore[attr-defined]
    assert reason(outer) == "ValueError: C++ compile error"
    assert reason(KeyError()) == "KeyError"
    assert len(reason(RuntimeError("x" * 1000))) == MAX_REASON_LENGTH


@pytest.mark.parametrize(("problems", "first"), [(["", ""], ""), (["", "Ä: b"], "Ä: b"), (["a", "b"], "a")])
def test_processes_agree_on_the_first_problem_of_any(problems: list[str], first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [torch.tensor([*problem.encode()], dtype=torch.uint8) for problem in problems]
    monkeypatch.setattr(module, "all_gather", lambda own: texts)
    assert first_problem(problems[0]) == first


def test_another_process_s_problem_ends_compiling_here(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_as(monkeypatch, lambda function: function)
    monkeypatch.setattr(module, "first_problem", lambda problem: "no compiler there")
    compiled = CompiledLoss(*made(), "default")
    compiled((IMAGES,), LABELS)
    assert compiled.outcome == "not compiled: no compiler there"


def test_a_run_finishes_although_compiling_fails_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.chdir(tmp_path)
    backend(monkeypatch, fail)
    fallen = arclight.run([*TINY_IMAGES, "precision=fp32", "trainer.max_epochs=1", "hardware.compile=true"])
    assert fallen.results["status"] == "finished"
    assert fallen.results["compile"] == "not compiled: RuntimeError: no compiler"
    assert "failed, and training continues without it: RuntimeError: no compiler" in (fallen.folder / "train.log").read_text()
