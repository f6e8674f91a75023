"""Waiting times are measured from outside; nothing here depends on time."""

from __future__ import annotations

import pytest

from arclight.benchmark.command_line import BenchmarkOptions
from arclight.benchmark.measurement import Case, Figure, Result
from arclight.benchmark.training_step import compose
from benchmarks import start


def test_an_answer_takes_time() -> None:
    assert start.answer("python", ("-c", "pass"), lambda line: None)() > 0


def test_the_recipes_compose() -> None:
    for recipe in start.FIRST_STEPS.values():
        assert compose([*recipe, *start.ONE_STEP])["trainer"]["max_steps"] == 1


def test_the_table_has_what_is_beyond_the_imports() -> None:
    cases = (
        Case("a", {}, {"seconds": Figure((1.0, 2.0), "s")}),
        Case("b", {}, {"seconds": Figure((3.0,), "s"), "beyond": Figure((2.0,), "s")}),
    )
    metadata = {"device": "CPU", "num_rounds": 2, "machine": {"flops": {}, "copy_bytes_per_s": 1e9}}
    assert start.to_table(Result("start", metadata, cases)).row_count == 2


@pytest.mark.processes
def test_imports_are_subtracted_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(start, "answer", lambda name, arguments, log: lambda: 1.0)
    monkeypatch.setattr(start, "first_step", lambda name, overrides, threads, log: lambda: float(next(seconds)))
    cases = {case.name: case for case in start.measure(BenchmarkOptions(num_rounds=2), print).cases}
    whole = cases["first step, images"].figures
    assert whole["beyond"].values == tuple(value - 1.0 for value in whole["seconds"].values)
