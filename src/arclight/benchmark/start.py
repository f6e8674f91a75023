"""`benchmark start`: how long a user waits, for an answer of the command line and for the first optimizer step.

Imports of Python's packages are measured beside it, in processes of their own: the first step is theirs and ours, and `beyond`
is ours alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from rich.table import Table

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave
from arclight.benchmark.options import Tell
from arclight.benchmark.train_process import train
from arclight.benchmark.training_step import compose
from arclight.config.locations import CONF
from arclight.hardware.peak_measurement import choose_device, measure_peaks

TRAIN = str(CONF.parent / "train.py")
IMPORTS = "import lightning.pytorch"
ANSWERS = {
    "python": ("-c", "pass"),
    "import torch": ("-c", "import torch"),
    IMPORTS: ("-c", "import torch, lightning.pytorch"),
    "train.py --help": (TRAIN, "--help"),
    "train.py --cfg job": (TRAIN, "--cfg", "job"),
}
ONE_STEP = ("trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "callbacks=none")
FIRST_STEPS = {"first step, images": ("experiment=demo",), "first step, text": ("experiment=demo_tagger",)}


def measure_start(overrides: Sequence[str], *, num_rounds: int = 5, tell: Tell = lambda line: None) -> Result:
    """The table of this machine; the first steps are those of the demo recipes, with these overrides.

    Raises:
        InputError: for a mistake in the overrides, or less than one round.
    """
    settings = compose(["experiment=demo", *overrides])
    hardware_info = hardware.probe()
    cases: dict[str, Callable[[], float]] = {name: answer(name, arguments, tell) for name, arguments in ANSWERS.items()}
    cases |= {
        name: first_step(name, (*recipe, *ONE_STEP, *overrides), hardware_info.num_cores, tell)
        for name, recipe in FIRST_STEPS.items()
    }
    measured = interleave(cases, num_rounds)
    made = []
    for name, seconds in measured.items():
        figures = {"seconds": Figure(tuple(seconds), "s")}
        if name in FIRST_STEPS:
            beyond = (whole - imports for whole, imports in zip(seconds, measured[IMPORTS], strict=True))
            figures["beyond"] = Figure(tuple(beyond), "s")
        made.append(Case(name, {}, figures))
    machine = measure_peaks(choose_device("auto"), hardware_info)
    plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
    described = {"overrides": list(overrides)}
    return Result("start", gather_facts(machine, plan, described, num_rounds=num_rounds), tuple(made))


def answer(name: str, arguments: Sequence[str], tell: Tell) -> Callable[[], float]:
    """A call that gives the seconds until a command has ended."""

    def once() -> float:
        tell(name)
        with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
            return time.perf_counter() - began

    return once


def first_step(name: str, overrides: Sequence[str], num_threads: int, tell: Tell) -> Callable[[], float]:
    """A call that gives the seconds from the start of the process to the end of its first optimizer step."""

    def once() -> float:
        tell(name)
        return float(train(overrides, num_threads=num_threads).results["time/first_step_s"])

    return once


def to_table(result: Result) -> Table:
    """A row for each thing that is waited for."""
    title = f"start on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table("", "seconds", f"beyond {IMPORTS}", title=title, title_justify="left")
    for case in result.cases:
        cells = [case.figures[key].to_text() if key in case.figures else "" for key in ("seconds", "beyond")]
        table.add_row(case.name, *cells)
    return table
