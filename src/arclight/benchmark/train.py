"""`benchmark train`: how fast `python train.py` trains a config, and configs that differ from it by some overrides.

Every case is a process of its own, several times over, interleaved.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log
from arclight.benchmark.measurement import Case, Figure, Result, interleave_with_peaks, make_result, ratio
from arclight.benchmark.training_step import compose, with_defaults
from arclight.callbacks.throughput import NUM_FIRST
from arclight.config.hardware_plan import plan_hardware
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from arclight.runs.temporary import temporary_directory

OURS = "arclight"
PLACES = {"auto": [], "cpu": ["trainer=cpu"], "cuda": ["trainer=gpu"]}  # overrides by the option --device
TIMEOUT_S = 1800.0
# set by launchers; Lightning would take them for the rank of the measured process
RANKS = ("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SHOWN_CHARACTERS = 2000  # of the output of a process that failed
# figures by name: key in results.json, unit, heading
FIGURES = {
    "samples": ("train/samples_per_s", "1/s", "samples/s"),
    "tokens": ("train/tokens_per_s", "1/s", "tokens/s"),
    "step": ("train/step_ms", "ms", "ms per step"),
    "data_wait": ("train/data_wait_share", "", "waiting for data"),
    "mfu": ("train/mfu", "", "MFU"),
    "tflops": ("train/tflops", "TFLOP/s", "TFLOP/s"),
}


@dataclass(frozen=True, kw_only=True)
class Options(BenchmarkOptions):
    """What `benchmark train` is given; each of `also` is another case, its overrides separated by blanks."""

    also: Sequence[str] = ()
    num_steps: int = 100


def measure(options: Options, log: Log) -> Result:
    """Trains every case in every round.

    Raises:
        InputError: for an error in the overrides.
        RuntimeError: when a run fails, with the end of its output.
    """
    hardware_info, device = hardware.probe(), choose_device(options.device)
    overrides = [*PLACES[options.device], *options.overrides]
    commands = {OURS: overrides, **{also: [*overrides, *also.split()] for also in options.also}}
    settings = {name: compose(own) for name, own in commands.items()}  # every error is raised before anything is started
    plans = {name: plan_hardware(own, hardware_info) for name, own in settings.items()}
    calls = {
        name: functools.partial(measure_speed, own, options.num_steps, num_threads=hardware_info.num_cores)
        for name, own in commands.items()
    }
    peaks = functools.partial(measure_peaks, device, hardware_info)
    measured, machine = interleave_with_peaks(calls, options.num_rounds, peaks, log)
    precisions = {name: precision_of(plan) for name, plan in plans.items()}
    about = {"overrides": overrides, "num_steps": options.num_steps}
    cases = to_cases(measured, machine.flops, precisions)
    name = f"train-{settings[OURS]['name']}"
    return make_result(name, cases, machine, plans[OURS], about, num_rounds=options.num_rounds)


def steady(overrides: Sequence[str], num_steps: int) -> list[str]:
    """Returns the overrides of a run of so many steps in the steady state, with one batch of validation and test each."""
    limits = ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.max_epochs=-1"]
    return [*with_defaults(overrides, {"callbacks": "none"}), *limits, f"trainer.max_steps={NUM_FIRST + num_steps}"]


def measure_speed(overrides: Sequence[str], num_steps: int, *, num_threads: int) -> dict[str, float]:
    """Returns the numbers of FIGURES for one run of `python train.py`."""
    return numbers_of(train(steady(overrides, num_steps), num_threads=num_threads))


def numbers_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of FIGURES that results.json holds."""
    return {name: float(results[key]) for name, (key, _, _) in FIGURES.items() if results.get(key) is not None}


def precision_of(plan: Mapping[str, hardware.Decision]) -> str:
    """Returns the precision of the plan's matrix products, a name of a measured peak."""
    chosen = str(plan["precision"].value)
    fp32 = "fp32" if plan["matmul_precision"].value == "highest" else "tf32"
    return "bf16" if chosen.startswith("bf16") else "fp16" if chosen.startswith("16") else fp32


def figures_of(rounds: Sequence[Mapping[str, float]], peak: float | None) -> dict[str, Figure]:
    """Returns those of FIGURES that all rounds have, and their fraction of the peak FLOP/s, if that is known."""
    figures = {
        key: Figure(tuple(numbers[key] for numbers in rounds), unit)
        for key, (_, unit, _) in FIGURES.items()
        if all(key in numbers for numbers in rounds)
    }
    if peak and "tflops" in figures:
        figures["peak_share"] = Figure(tuple(1e12 * value / peak for value in figures["tflops"].values), "")
    return figures


def to_cases(
    measured: Mapping[str, Sequence[Mapping[str, float]]], peaks: Mapping[str, float], precisions: Mapping[str, str]
) -> list[Case]:
    """Returns each case with its speed, its fraction of the peak of its precision, and the speed of the first case over it."""
    cases: list[Case] = []
    per = "tokens" if all("tokens" in rounds[0] for rounds in measured.values()) else "samples"
    for name, rounds in measured.items():
        figures = figures_of(rounds, peaks.get(precisions[name]))
        if cases:
            figures["factor"] = ratio(cases[0].figures[per], figures[per])
        cases.append(Case(name, {"precision": precisions[name]}, figures))
    return cases


def to_table(result: Result) -> Table:
    """Returns a row for each case."""
    headings = {name: heading for name, (_, _, heading) in FIGURES.items()}
    headings |= {"factor": f"{OURS} over it", "peak_share": "of peak"}
    return measurement.to_table(result, headings, settings=["precision"])


def train(overrides: Sequence[str], *, num_threads: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Trains as `train_in` does, in a temporary directory."""
    with temporary_directory("benchmark") as folder:
        return train_in(folder, overrides, num_threads=num_threads, timeout_s=timeout_s)


def train_in(folder: Path, overrides: Sequence[str], *, num_threads: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Trains in a new process, which may start more, in `folder`, and returns what the only run there wrote to results.json.

    Raises:
        InputError: with the message of the run, when the overrides are wrong.
        RuntimeError: with the end of its output, when the run failed in another way or timed out.
    """
    command = [sys.executable, str(CONF.parent / "train.py"), *overrides]
    with (folder / "output").open("w+") as output:
        status = wait_for(command, folder, environment_for(num_threads), output.fileno(), timeout_s)
        output.seek(0)
        text = output.read()
    if status == 2 and "error: " in text:
        raise InputError(text[text.index("error: ") + len("error: ") :].strip())
    if status != 0:
        ended = f"took more than {timeout_s:.0f} s" if status is None else f"exited with status {status}"
        raise RuntimeError(f"python train.py {' '.join(overrides)} {ended}:\n{text[-SHOWN_CHARACTERS:]}")
    (file,) = folder.glob("outputs/*/*/results.json")
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results


def environment_for(num_threads: int) -> dict[str, str]:
    """Returns the environment of a measured process: its number of threads, and no rank."""
    inherited = {key: value for key, value in os.environ.items() if key not in RANKS}
    # torch, MKL and OpenBLAS all read the first of them
    return {**inherited, "OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}


def wait_for(command: list[str], folder: Path, environment: dict[str, str], output: int, timeout_s: float) -> int | None:
    """Returns the exit status, None after `timeout_s`; kills every process that it started, whatever happens."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
