"""`benchmark tracking`: what trackers cost the training: its step with each of them, and with all, over that with none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, ratio, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.scaling import TASKS
from arclight.benchmark.train_process import train
from arclight.benchmark.training import steady
from arclight.benchmark.training_step import compose, with_defaults
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks

NONE, ALL = "none", "all of them"
ALONE = ("csv", "tensorboard", "wandb", "mlflow")
TARGET = 1.03  # of the step with all of them over that with none, at most


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Raises:
        InputError: for a number out of its range, or overrides that choose trackers.
    """

    task: str = "images"
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    num_steps: int = 300
    num_rounds: int = 5

    def __post_init__(self) -> None:
        check_counts({"--repeats": self.num_rounds, "--steps": self.num_steps})
        if chosen := [override for override in self.overrides if override.lstrip("+~").startswith("logger")]:
            raise InputError(f"{chosen[0]}: this benchmark goes through the trackers itself; leave it out")


def measure_tracking(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine; W&B offline, MLflow where it is installed.

    Raises:
        InputError: for a wish that this machine or the config cannot fulfil.
        RuntimeError: when a run fails, with what it said.
    """
    hardware_info, device = hardware.probe(), choose_device(wish.device)
    overrides = with_defaults(wish.overrides, TASKS[wish.task])
    settings = compose(overrides)
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)

    def once(name: str, chosen: tuple[str, ...]) -> Callable[[], dict[str, float]]:
        def measured() -> dict[str, float]:
            tell(name)
            results = train(
                [*steady(overrides, wish.num_steps), *tracked_by(chosen)], num_threads=hardware_info.num_cores
            ).results
            return {"step": results["train/step_ms"], "share": results["train/logging_share"]}

        return measured

    measured = interleave({name: once(name, chosen) for name, chosen in decisions().items()}, wish.num_rounds)
    plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
    described = {"task": wish.task, "overrides": overrides, "num_steps": wish.num_steps, "target": TARGET}
    described["log_every_n_steps"] = settings["trainer"]["log_every_n_steps"]
    known = gather_facts(machine, plan, described, num_rounds=wish.num_rounds)
    return Result(f"tracking-{settings['name']}", known, tuple(to_cases(measured)))


def decisions() -> dict[str, tuple[str, ...]]:
    """The trackers of each case."""
    there = tuple(name for name in ALONE if name != "mlflow" or importlib.util.find_spec("mlflow") is not None)
    return {NONE: (), **{name: (name,) for name in there}, ALL: there}


def tracked_by(chosen: tuple[str, ...]) -> list[str]:
    """Overrides for these trackers."""
    offline = ["logger.wandb.mode=offline"] if "wandb" in chosen else []
    return [f"logger=[{','.join(chosen)}]" if chosen else "logger=none", *offline]


def to_cases(measured: Mapping[str, list[dict[str, float]]]) -> list[Case]:
    """Each choice of trackers with its step, and that over the step without any, round by round."""
    steps = {name: Figure(tuple(numbers["step"] for numbers in rounds), "ms") for name, rounds in measured.items()}
    cases = []
    for name, step in steps.items():
        share = Figure(tuple(numbers["share"] for numbers in measured[name]), "")
        factor = {} if name == NONE else {"factor": ratio(step, steps[NONE])}
        trackers: dict[str, Any] = {"trackers": list(decisions().get(name, ()))}
        cases.append(Case(name, trackers, {"step": step, "logging_share": share, **factor}))
    return cases


def to_table(result: Result) -> Table:
    """A row for each choice of trackers."""
    title = f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table(title=title, title_justify="left")
    table.add_column("trackers")
    for heading in ("ms a step", "over none", "in callbacks and loggers"):
        table.add_column(heading, justify="right")
    for case in result.cases:
        factor = case.figures.get("factor")
        cells = (significant(case.figures["step"].median, 3), factor.to_text(4) if factor else "")
        table.add_row(case.name, *cells, f"{case.figures['logging_share'].median:.1%}")
    settings = result.facts["settings"]
    table.caption = f"logged every {settings['log_every_n_steps']} steps; at most {settings['target']} is wanted"
    return table
