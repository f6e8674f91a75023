"""How long a user waits for an answer of the command line, and for the first optimizer step.

    python -m benchmarks.start

Imports of Python's packages are measured in processes of their own: `beyond` is the first step without them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, interleave, make_result
from arclight.benchmark.train import train
from arclight.benchmark.training_step import compose
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.config.locations import CONF
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from benchmarks.tasks import new_parser

TRAIN = str(CONF.parent / "train.py")
IMPORTS = "import lightning.pytorch"
COMMANDS = {
    "python": ("-c", "pass"),
    "import torch": ("-c", "import torch"),
    IMPORTS: ("-c", "import torch, lightning.pytorch"),
    "train.py --help": (TRAIN, "--help"),
    "train.py --cfg job": (TRAIN, "--cfg", "job"),
}
ONE_STEP = ("trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "callbacks=none")
FIRST_STEPS = {"first step, images": ("experiment=demo",), "first step, text": ("experiment=demo_tagger",)}


def measure(options: BenchmarkOptions, log: Log) -> Result:
    """Times every command in every round; the first steps are those of the demo recipes, with these overrides."""
    settings = compose(["experiment=demo", *options.overrides])
    hardware_info = hardware.probe()
    calls: dict[str, Callable[[], float]] = {name: answer(name, arguments, log) for name, arguments in COMMANDS.items()}
    calls |= {
        name: first_step(name, (*recipe, *ONE_STEP, *options.overrides), hardware_info.num_cores, log)
        for name, recipe in FIRST_STEPS.items()
    }
    measured = interleave(calls, options.num_rounds)
    cases = []
    for name, seconds in measured.items():
        figures = {"seconds": Figure(tuple(seconds), "s")}
        if name in FIRST_STEPS:
            beyond = (whole - imports for whole, imports in zip(seconds, measured[IMPORTS], strict=True))
            figures["beyond"] = Figure(tuple(beyond), "s")
        cases.append(Case(name, {}, figures))
    machine = measure_peaks(choose_device(options.device), hardware_info)
    plan = plan_hardware(settings, hardware_info)
    return make_result("start", cases, machine, plan, {"overrides": list(options.overrides)}, num_rounds=options.num_rounds)


def answer(name: str, arguments: Sequence[str], log: Log) -> Callable[[], float]:
    """Returns a call that returns the seconds until a command has ended."""

    def once() -> float:
        log(name)
        with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
            return time.perf_counter() - began

    return once


def first_step(name: str, overrides: Sequence[str], num_threads: int, log: Log) -> Callable[[], float]:
    """Returns a call that returns the seconds from the start of a process to the end of its first optimizer step."""

    def once() -> float:
        log(name)
        return float(train(overrides, num_threads=num_threads)["time/first_step_s"])

    return once


def to_table(result: Result) -> Table:
    """Returns a row for each command."""
    return measurement.to_table(result, {"seconds": "seconds", "beyond": f"beyond {IMPORTS}"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__, has_task=False)
    with report_errors():
        run_benchmark(parser.parse_args(arguments), BenchmarkOptions, measure, lambda result: [to_table(result)])


if __name__ == "__main__":
    main()
