"""What resuming costs, and what the checkpoints for it cost.

    python -m benchmarks.resume --repeats 3

A run of one epoch is trained in a process of its own and resumed for a second epoch in another. Measured are the time from the
start of each process to the end of its first optimizer step, and the saves of `last.ckpt` in both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, interleave, make_result
from arclight.benchmark.train import train_in
from arclight.benchmark.training_step import compose
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from benchmarks.tasks import new_parser

RECIPES = {"images": ("experiment=demo",), "text": ("experiment=demo_tagger",)}
FIRST = ("trainer.max_epochs=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "callbacks=none")
AGAIN = ("resume=latest", "resume_with_changes=true", "trainer.max_epochs=2")
HEADINGS = {
    **{"fresh": "first step, new run (s)", "resumed": "first step, resumed (s)", "beyond": "difference (s)"},
    **{"size": "checkpoint (MB)", "save": "a save (ms)", "steps": "in steps"},
}


def measure(options: BenchmarkOptions, log: Log) -> Result:
    """Trains and resumes the demo recipes in every round, with these overrides."""
    settings = compose(["experiment=demo", *options.overrides])
    hardware_info = hardware.probe()
    every_minutes = settings["checkpoint"]["every_minutes"]
    calls = {
        task: train_twice(task, (*recipe, *FIRST, *options.overrides), hardware_info.num_cores, log)
        for task, recipe in RECIPES.items()
    }
    measured = interleave(calls, options.num_rounds)
    cases = [
        Case(task, {"every_minutes": every_minutes}, to_figures(rounds, every_minutes)) for task, rounds in measured.items()
    ]
    machine = measure_peaks(choose_device(options.device), hardware_info)
    plan = plan_hardware(settings, hardware_info)
    return make_result("resume", cases, machine, plan, {"overrides": list(options.overrides)}, num_rounds=options.num_rounds)


def train_twice(task: str, overrides: Sequence[str], num_threads: int, log: Log) -> Callable[[], dict[str, float]]:
    """Returns a call that trains and resumes, and returns seconds to the first steps, of a save and of a step, and bytes."""

    def once() -> dict[str, float]:
        log(task)
        with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
            first = train_in(Path(folder), overrides, num_threads=num_threads)
            again = train_in(Path(folder), AGAIN, num_threads=num_threads)
            (saved,) = Path(folder).glob("outputs/*/*/checkpoints/last.ckpt")
            return numbers_of(first, again) | {"bytes": float(saved.stat().st_size)}

    return once


def numbers_of(first: dict[str, Any], again: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers in the results of both runs, saves and steps as means over them."""
    num_saves = first["checkpoint/num_saves"] + again["checkpoint/num_saves"]
    return {
        "fresh_s": first["time/first_step_s"],
        "resumed_s": again["time/first_step_s"],
        "save_s": (first["checkpoint/save_s"] + again["checkpoint/save_s"]) / num_saves,
        "step_s": (first["train/step_ms"] + again["train/step_ms"]) / 2000,
    }


def to_figures(rounds: Sequence[dict[str, float]], every_minutes: float | None) -> dict[str, Figure]:
    """Returns the columns of the table; `share` is the percentage of training that a save every so many minutes takes."""

    def figure(value: Callable[[dict[str, float]], float], unit: str) -> Figure:
        return Figure(tuple(value(one) for one in rounds), unit)

    figures = {
        "fresh": figure(lambda one: one["fresh_s"], "s"),
        "resumed": figure(lambda one: one["resumed_s"], "s"),
        "beyond": figure(lambda one: one["resumed_s"] - one["fresh_s"], "s"),
        "size": figure(lambda one: one["bytes"] / 1e6, "MB"),
        "save": figure(lambda one: 1000 * one["save_s"], "ms"),
        "steps": figure(lambda one: one["save_s"] / one["step_s"], "steps"),
    }
    if every_minutes is not None:
        figures["share"] = figure(lambda one: 100 * one["save_s"] / (60 * every_minutes), "%")
    return figures


def to_table(result: Result) -> Table:
    """Returns a row for each task."""
    every = result.cases[0].settings["every_minutes"]
    return measurement.to_table(result, {**HEADINGS, "share": f"% of training, every {every} min"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__, has_task=False)
    with report_errors():
        run_benchmark(parser.parse_args(arguments), BenchmarkOptions, measure, lambda result: [to_table(result)])


if __name__ == "__main__":
    main()
