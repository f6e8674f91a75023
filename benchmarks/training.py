"""How fast `python train.py` trains, compared with a bare loop of the same kernels and with the loops that others run.

    python -m benchmarks.training --fp32 --steps 300
    python -m benchmarks.training --task text data=conll2003 model.checkpoint=DIRECTORY

Every case is a process of its own, several times over, interleaved. The baselines take the same overrides, so that data, net
and batch are the same.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import Log, count, run_benchmark
from arclight.benchmark.measurement import Case, Result, interleave_with_peaks, make_result, ratio
from arclight.benchmark.train import (
    FIGURES,
    OURS,
    PLACES,
    SHOWN_CHARACTERS,
    TIMEOUT_S,
    environment_for,
    measure_speed,
    numbers_of,
    precision_of,
    to_cases,
)
from arclight.benchmark.training_step import compose, key_of
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from benchmarks.tasks import TaskOptions, new_parser

OURS_FP32 = "arclight in fp32"
RAW = "raw"
# arguments of `python -m benchmarks.`
BASELINES = {
    RAW: ("raw_loop",),
    "dataloader": ("dataloader_loop",),
    "hf_trainer": ("hf_trainer",),
    "padded": ("hf_trainer", "--pad-to", "128"),
    "hf_trainer_bf16": ("hf_trainer", "--bf16"),
    "tagger_loop": ("tagger_loop",),
    "tagger_loop_bf16": ("tagger_loop", "--bf16"),
}
KINDS = {"images": (RAW, "dataloader"), "text": tuple(name for name in BASELINES if name != "dataloader")}
DEFAULTS = {"images": (RAW, "dataloader"), "text": (RAW, "hf_trainer", "padded")}  # without --against
LOADED = {"batches": "load/batches_per_s", "bytes": "load/bytes_per_s"}  # printed by baselines with --only-load


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What the command line says."""

    against: Sequence[str] = ()
    num_steps: int = 100
    with_fp32: bool = False


def measure(options: Options, log: Log) -> Result:
    """Trains every way in every round.

    Raises:
        InputError: for an error in the overrides, or a baseline of the other task.
        RuntimeError: when a process fails, with the end of its output.
    """
    for name in options.against:
        if name not in KINDS[options.task]:
            raise InputError(f"--against {name}: the baselines of --task {options.task} are {', '.join(KINDS[options.task])}")
    ours = (OURS, OURS_FP32) if options.with_fp32 else (OURS,)
    names = (*ours, *(options.against or DEFAULTS[options.task]))
    if any(BASELINES[name][0] == "hf_trainer" for name in names if name in BASELINES) and not find_spec("accelerate"):
        install = "pip install -r benchmarks/requirements.txt"
        raise InputError(f"--against hf_trainer: transformers' Trainer needs accelerate. Try: {install}; or --against {RAW}")
    hardware_info, device = hardware.probe(), choose_device(options.device)
    enough = [] if any(key_of(o) == "data" for o in options.overrides) or options.task == "text" else ["data.num_train=4096"]
    overrides = [*enough, *PLACES[options.device], *options.task_overrides()]
    settings = compose(overrides)
    num_threads = hardware_info.num_cores

    def way(name: str) -> Callable[[], dict[str, float]]:
        def once() -> dict[str, float]:
            log(name)
            if name in (OURS, OURS_FP32):
                own = in_fp32(overrides) if name == OURS_FP32 else overrides
                return measure_speed(own, options.num_steps, num_threads=num_threads)
            return run_baseline(name, options.num_steps, overrides, num_threads=num_threads)

        return once

    peaks = functools.partial(measure_peaks, device, hardware_info)
    measured, machine = interleave_with_peaks({name: way(name) for name in names}, options.num_rounds, peaks)
    plan = plan_hardware(settings, hardware_info)
    precisions = {name: precision_in(name, plan, device_type=device.type, task=options.task) for name in names}
    cases = compare(measured, machine.flops, precisions)
    about = {"task": options.task, "overrides": overrides, "num_steps": options.num_steps}
    return make_result(f"train-{settings['name']}", cases, machine, plan, about, num_rounds=options.num_rounds)


def precision_in(name: str, plan: Mapping[str, hardware.Decision], *, device_type: str, task: str) -> str:
    """Returns the precision of a way's matrix products, a name of a measured peak."""
    if name in (OURS, RAW):
        return precision_of(plan)
    if name.endswith("_bf16"):
        return "bf16"
    # torch's own default lets convolutions on GPUs use TF32
    return "tf32" if name != OURS_FP32 and task == "images" and device_type == "cuda" else "fp32"


def in_fp32(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides with fp32 in place of any other precision."""
    return [*(override for override in overrides if key_of(override) != "precision"), "precision=fp32"]


def run_baseline(
    name: str, num_steps: int, overrides: Sequence[str], *, num_threads: int, options: Sequence[str] = ()
) -> dict[str, float]:
    """Runs the program of a baseline, with these options besides its own, and returns what it measured.

    Raises:
        RuntimeError: when it failed, with the end of its output.
    """
    module, *own = BASELINES[name]
    arguments = ["-m", f"benchmarks.{module}", *own, "--steps", str(num_steps), *options, *overrides]
    results = run_program(arguments, num_threads=num_threads)
    return numbers_of(results) | {key: float(results[loaded]) for key, loaded in LOADED.items() if loaded in results}


def run_program(arguments: Sequence[str], *, num_threads: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Runs Python with these arguments in a temporary directory and returns the JSON in the last line that it prints.

    Raises:
        RuntimeError: when it failed, with the end of its output.
    """
    paths = [str(CONF.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**environment_for(num_threads), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    if ended.returncode != 0:
        shown = " ".join(arguments[:5])
        raise RuntimeError(f"{shown} exited with status {ended.returncode}:\n{ended.stderr[-SHOWN_CHARACTERS:]}")
    results: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return results


def compare(
    measured: Mapping[str, Sequence[dict[str, float]]], peaks: Mapping[str, float], precisions: Mapping[str, str]
) -> list[Case]:
    """Returns each way with its speed, ours over it, and the fraction of the peak in its own precision that it reaches."""
    per = "tokens" if "tokens" in measured[OURS][0] else "samples"
    first = measured[OURS][0]
    if "tflops" in first:
        flops = first["tflops"] / first[per]  # useful work of one sample or token: the same for all ways
        measured = {name: [{**one, "tflops": flops * one[per]} for one in rounds] for name, rounds in measured.items()}
    cases = {case.name: case for case in to_cases(measured, peaks, precisions)}
    for name, case in cases.items():
        if name == OURS_FP32:
            del case.figures["factor"]
        elif name != OURS and OURS_FP32 in cases:
            case.figures["factor_fp32"] = ratio(cases[OURS_FP32].figures[per], case.figures[per])
    return list(cases.values())


def to_table(result: Result) -> Table:
    """Returns a row for each way to train."""
    headings = {name: heading for name, (_, _, heading) in FIGURES.items() if name not in ("tflops", "data_wait")}
    headings |= {"factor": f"{OURS} over it", "factor_fp32": "in fp32 over it", "peak_share": "of peak"}
    return measurement.to_table(result, headings, settings=["precision"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__)
    known = ", ".join(f"of {task}: {', '.join(names)}" for task, names in KINDS.items())
    parser.add_argument("--against", action="append", metavar="NAME", help=known)
    parser.add_argument("--fp32", action="store_true", dest="with_fp32", help="also `python train.py precision=fp32`")
    parser.add_argument("--steps", type=count, default=100, dest="num_steps", help="measured in each run (%(default)s)")
    with report_errors():
        run_benchmark(parser.parse_args(arguments), Options, measure, lambda result: [to_table(result)])


if __name__ == "__main__":
    main()
