"""`benchmark resume`: what it costs to go on, and what it costs to be able to.

A run of one epoch is trained in a process of its own and then, in another, goes on for a second one. Measured are the time from
the start of each process to the end of its first optimizer step, and the saves of `last.ckpt` in both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave
from arclight.benchmark.options import Tell
from arclight.benchmark.train_process import train_in
from arclight.benchmark.training_step import compose
from arclight.hardware.peak_measurement import choose_device, measure_peaks

TASKS = {"images": ("experiment=demo",), "text": ("experiment=demo_tagger",)}
FIRST = ("trainer.max_epochs=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "callbacks=none")
AGAIN = ("resume=latest", "resume_with_changes=true", "trainer.max_epochs=2")


def measure_resume(overrides: Sequence[str], *, num_rounds: int = 5, tell: Tell = lambda line: None) -> Result:
    """The table of this machine; the runs are those of the demo recipes, with these overrides.

    Raises:
        InputError: for a mistake in the overrides, or less than one round.
    """
    settings = compose(["experiment=demo", *overrides])
    hardware_info = hardware.probe()
    every_minutes = settings["checkpoint"]["every_minutes"]
    measured = interleave(
        {
            task: train_twice(task, (*recipe, *FIRST, *overrides), hardware_info.num_cores, tell)
            for task, recipe in TASKS.items()
        },
        num_rounds,
    )
    cases = tuple(
        Case(task, {"every_minutes": every_minutes}, to_figures(rounds, every_minutes)) for task, rounds in measured.items()
    )
    machine = measure_peaks(choose_device("auto"), hardware_info)
    plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
    return Result("resume", gather_facts(machine, plan, {"overrides": list(overrides)}, num_rounds=num_rounds), cases)


def train_twice(task: str, overrides: Sequence[str], num_threads: int, tell: Tell) -> Callable[[], dict[str, float]]:
    """A call that gives what one run and its going on took: seconds to the first steps, of a save and of a step, and bytes."""

    def once() -> dict[str, float]:
        tell(task)
        with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
            first = train_in(Path(folder), overrides, num_threads=num_threads).results
            again = train_in(Path(folder), AGAIN, num_threads=num_threads).results
            (saved,) = Path(folder).glob("outputs/*/*/checkpoints/last.ckpt")
            return numbers_of(first, again) | {"bytes": float(saved.stat().st_size)}

    return once


def numbers_of(first: dict[str, Any], again: dict[str, Any]) -> dict[str, float]:
    """What the results of both runs say, saves and steps as means over them."""
    num_saves = first["checkpoint/num_saves"] + again["checkpoint/num_saves"]
    return {
        "fresh_s": first["time/first_step_s"],
        "resumed_s": again["time/first_step_s"],
        "save_s": (first["checkpoint/save_s"] + again["checkpoint/save_s"]) / num_saves,
        "step_s": (first["train/step_ms"] + again["train/step_ms"]) / 2000,
    }


def to_figures(rounds: Sequence[dict[str, float]], every_minutes: float | None) -> dict[str, Figure]:
    """The columns of the table; `share` is a save every so many minutes as a part of the time of training."""

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
    """A row for each task."""
    every = result.cases[0].settings["every_minutes"]
    titles = {
        **{"fresh": "first step, new run (s)", "resumed": "first step, going on (s)", "beyond": "more (s)"},
        **{"size": "checkpoint (MB)", "save": "a save (ms)", "steps": "in steps", "share": f"% of training, every {every} min"},
    }
    shown = {key: title for key, title in titles.items() if key in result.cases[0].figures}
    title = f"resume on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table("", *shown.values(), title=title, title_justify="left")
    for case in result.cases:
        table.add_row(case.name, *(case.figures[key].to_text() for key in shown))
    return table
