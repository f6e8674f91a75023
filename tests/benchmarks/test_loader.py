"""Batches alone: what is counted is what the loaders return; nothing here depends on time."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from arclight.hardware.peak_measurement import MeasuredPeaks
from benchmarks import loader
from benchmarks.loader import Options, rates, sources, timer, to_cases, to_table, worker_counts
from benchmarks.training import run_baseline
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e11}, 1e10)
CPU = torch.device("cpu")


def test_rates() -> None:
    assert rates(2.0, 10, 40.0, 0.0, 800.0) == {"batches": 5, "samples": 20, "bytes": 400}
    assert rates(2.0, 10, 40.0, 60.0, 800.0)["tokens"] == 30


@pytest.mark.parametrize(("task", "overrides", "num_ways"), [("images", TINY_IMAGES, 1), ("text", TINY_TEXT, 3)])
def test_our_batches_are_counted_whole(task: str, overrides: list[str], num_ways: int) -> None:
    made = list(sources(overrides, task, num_workers=1))
    assert len(made) == num_ways
    for name, data, prepare in made:
        numbers = timer(data, prepare, 5, CPU)()
        assert numbers["samples"] == pytest.approx(numbers["batches"] * data.batch_size), name
        if task == "images":  # float pixels, as a net takes them
            assert numbers["bytes"] == pytest.approx(numbers["samples"] * 4 * 3 * 32 * 32)
        else:
            assert numbers["tokens"] > numbers["samples"]


def test_the_fraction_of_the_copy_speed_counts_reading_and_writing() -> None:
    measured = {"ours": [{"batches": 1.0, "samples": 8.0, "bytes": 1e9}], "theirs": [{"batches": 1.0, "samples": 2.0}]}
    ours, theirs = to_cases(measured, MACHINE)
    assert ours.figures["copy_share"].median == pytest.approx(0.2)
    assert theirs.figures["factor"].median == 4


def test_the_result_is_compared_with_a_dataloader(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(name: str, num: int, overrides: list[str], *, num_threads: int, options: tuple[str, ...]) -> dict[str, float]:
        asked.append((name, options))
        return {"batches": 1.0, "samples": 1.0, "bytes": 1.0}

    monkeypatch.setattr(loader, "run_baseline", run)
    monkeypatch.setattr(loader, "measure_peaks", lambda device, hardware_info: MACHINE)
    overrides = ("data.num_train=64", "data.num_val=8", "data.num_test=8", "data.batch_size=16")
    options = Options(against="dataloader", workers=(0, 3), overrides=overrides, num_batches=2, num_rounds=1)
    result = loader.measure(options, print)
    assert [case.name for case in result.cases] == ["arclight", "DataLoader, 0 workers", "DataLoader, 3 workers"]
    assert asked[1] == ("dataloader", ("--only-load", "--workers", "3"))
    assert to_table(result).row_count == 3


def test_numbers_of_workers_may_be_zero() -> None:
    assert worker_counts("3,0") == [0, 3]
    with pytest.raises(argparse.ArgumentTypeError, match="-1 must be a whole number of 1 or more"):
        worker_counts("-1")


@pytest.mark.processes
@pytest.mark.parametrize(("name", "overrides"), [("dataloader", TINY_IMAGES), ("tagger_loop", TINY_TEXT)])
def test_a_dataloader_gives_the_same_batches(name: str, overrides: list[str]) -> None:
    numbers = run_baseline(name, 3, overrides, num_threads=1, options=("--only-load", "--workers", "1"))
    assert numbers["samples"] == pytest.approx(16 * numbers["batches"])
    if name == "dataloader":
        assert numbers["bytes"] == pytest.approx(numbers["samples"] * 4 * 3 * 32 * 32)
    else:
        assert numbers["tokens"] > numbers["samples"]
