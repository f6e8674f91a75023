"""Recipes of CIFAR-10 by the clock of the speed records: accuracy, seconds, joules over several seeds in one process.

    python benchmarks/records.py --runs 5 --output records.json experiment=cifar10_fast data.root=FOLDER
    python benchmarks/records.py --also "hardware.compile=true" --also "logger=[csv,wandb]" ...

The first round is a warm-up that does not count, as theirs is: what is compiled is compiled then. Each --also is another case
with these overrides (several with blanks between them) added; cases are interleaved. `process` is one whole `python train.py`
beside them, imports included.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import arclight
from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, check_output, gather_facts, interleave, write_result
from arclight.benchmark.record_clock import read_clock
from arclight.benchmark.train_process import train
from arclight.benchmark.training_step import compose
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, device_name

CLOCK = "++callbacks.record_clock._target_=arclight.benchmark.record_clock.RecordClock"
WARM_UP_SEED = 1000
# from results.json, with the units
KEPT = {
    "test/accuracy": "",
    "train/samples_per_s": "1/s",
    "train/step_ms": "ms",
    "train/joules": "J",
    "train/tflops": "TFLOP/s",
    "train/mfu": "",
    "time/first_step_s": "s",
    "memory/peak_mb": "MB",
}


def main() -> None:
    """Runs, prints a line for each, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="seeds that count (%(default)s)")
    parser.add_argument("--also", action="append", default=[], metavar="OVERRIDES", help="another case with these added")
    parser.add_argument("--without-process", action="store_true", help="leave the whole `python train.py` out")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    check_output(options.output)
    settings = compose(options.overrides)
    name = next((o.partition("=")[2] for o in options.overrides if o.startswith("experiment=")), settings["name"])
    ways = {name: [], **{f"{name} {also}": also.split() for also in options.also}}
    output, here = options.output.resolve(), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="arclight-records-") as folder, contextlib.chdir(folder):
        overrides = [absolute(override, here) for override in options.overrides]
        failed: dict[str, str] = {}
        for way, own in ways.items():
            try:
                run_once([*overrides, *own], WARM_UP_SEED)
            except Exception as error:  # a compiler that fails: the other cases can still be measured
                failed[way] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        seeds = {way: iter(range(options.runs)) for way in ways}
        calls: dict[str, Callable[[], dict[str, float]]] = {
            way: (lambda way=way, own=own: told(way, run_once([*overrides, *own], next(seeds[way]))))
            for way, own in ways.items()
            if way not in failed
        }
        measured = interleave(calls, options.runs)
        whole: dict[str, Any] = {}
        if not options.without_process:
            whole = train([*overrides, "seed=0"], num_threads=hardware.probe().num_cores).results
    cases = [*(to_case(way, rounds) for way, rounds in measured.items())]
    cases += [Case(way, {}, missing=reason) for way, reason in failed.items()]
    kept = {key: Figure((float(whole[key]),), unit) for key, unit in {**KEPT, "time/total_s": "s"}.items() if key in whole}
    if kept:
        cases.append(Case(f"process: python train.py {' '.join(options.overrides)}", {}, kept))
    device = choose_device("auto")
    machine = MeasuredPeaks(device.type, device_name(device), torch.get_num_threads(), {}, 0.0)
    plan = hardware.plan(hardware.probe(), hardware.requested_settings(settings))
    hardware_info = gather_facts(machine, plan, {"overrides": options.overrides, "also": options.also}, num_rounds=options.runs)
    print(write_result(Result(f"records-{name}", hardware_info, tuple(cases)), output))


def absolute(override: str, folder: Path) -> str:
    """A path of the data as seen from anywhere."""
    key, _, value = override.partition("=")
    return f"{key}={(folder / value).resolve()}" if key == "data.root" else override


def run_once(overrides: list[str], seed: int) -> dict[str, float]:
    """One run in this process, its tables not printed."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = arclight.run([*overrides, CLOCK, f"seed={seed}"])
    return {**read_clock(run.folder), **{key: float(run.results[key]) for key in KEPT if key in run.results}}


def told(name: str, numbers: dict[str, float]) -> dict[str, float]:
    """The numbers, the most important of which are printed."""
    print(f"{name}: accuracy {numbers['test/accuracy']:.4f}, {numbers['record_s']:.3f} s", flush=True)
    return numbers


def to_case(name: str, rounds: list[dict[str, float]]) -> Case:
    """Every number that all rounds have."""
    units: dict[str, Any] = {
        **KEPT,
        **dict.fromkeys(("setup_s", "train_s", "test_s", "closing_s", "record_s", "with_closing_s"), "s"),
    }
    keys = [key for key in units if all(key in numbers for numbers in rounds)]
    return Case(name, {}, {key: Figure(tuple(numbers[key] for numbers in rounds), units[key]) for key in keys})


if __name__ == "__main__":
    main()
