"""Recipes of CIFAR-10 by the clock of the speed records: accuracy, seconds, joules over several seeds in one process.

    python -m benchmarks.records --runs 5 --output records.json experiment=cifar10_fast data.root=DIRECTORY
    python -m benchmarks.records --also "hardware.compile=true" --also "logger=[csv,wandb]" ...

The first round is a warm-up that does not count, like that of the records: what is compiled is compiled then. Each --also is
another case with these overrides (separated by blanks) added; cases are interleaved. `process` is one whole `python train.py`,
imports included.

The clock counts the first layer's filters, the epochs (augmentation, steps, Lightning, callbacks, loggers) and the test with
its test-time augmentation; like the records it leaves out imports, reading and moving the data, and validation. RecordClock
writes `record_clock.json` into the run directory:

    setup_s, train_s, test_s    the three parts; their sum is the records' clock
    closing_s                   from the end of training to the end of fit: the last checkpoint and what the loggers still write

Source: airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench, start_timer and stop_timer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import arclight
from arclight import hardware
from arclight.benchmark.command_line import new_file
from arclight.benchmark.measurement import Case, Figure, interleave, make_result, write_result
from arclight.benchmark.train import train
from arclight.benchmark.training_step import compose
from arclight.config.hardware_plan import plan_hardware
from benchmarks.tasks import absolute_paths, unmeasured_peaks

CLOCK = "++callbacks.record_clock._target_=benchmarks.records.RecordClock"
WARM_UP_SEED = 1000
# numbers of results.json, with their units
RECORDED = {
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
    """Runs every case, prints a line for each run, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="counted seeds (%(default)s)")
    parser.add_argument("--also", action="append", default=[], metavar="OVERRIDES", help="another case with these added")
    parser.add_argument("--without-process", action="store_true", help="leave out the whole `python train.py`")
    parser.add_argument("--output", type=new_file, required=True)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    settings = compose(options.overrides)
    name = next((o.partition("=")[2] for o in options.overrides if o.startswith("experiment=")), settings["name"])
    ways = {name: [], **{f"{name} {also}": also.split() for also in options.also}}
    output = options.output.resolve()
    overrides = absolute_paths(options.overrides, ["data.root"])
    with tempfile.TemporaryDirectory(prefix="arclight-records-") as folder, contextlib.chdir(folder):
        failed: dict[str, str] = {}
        for way, own in ways.items():
            try:
                run_once([*overrides, *own], WARM_UP_SEED)
            except Exception as error:  # a compiler that fails: the other cases can still be measured
                failed[way] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        seeds = {way: iter(range(options.runs)) for way in ways}
        calls: dict[str, Callable[[], dict[str, float]]] = {
            way: (lambda way=way, own=own: printed(way, run_once([*overrides, *own], next(seeds[way]))))
            for way, own in ways.items()
            if way not in failed
        }
        measured = interleave(calls, options.runs)
        whole: dict[str, Any] = {}
        if not options.without_process:
            whole = train([*overrides, "seed=0"], num_threads=hardware.probe().num_cores)
    cases = [*(to_case(way, rounds) for way, rounds in measured.items())]
    cases += [Case(way, {}, missing=reason) for way, reason in failed.items()]
    recorded = {
        key: Figure((float(whole[key]),), unit) for key, unit in {**RECORDED, "time/total_s": "s"}.items() if key in whole
    }
    if recorded:
        cases.append(Case(f"process: python train.py {' '.join(options.overrides)}", {}, recorded))
    plan = plan_hardware(settings, hardware.probe())
    about = {"overrides": options.overrides, "also": options.also}
    result = make_result(f"records-{name}", cases, unmeasured_peaks(), plan, about, num_rounds=options.runs)
    print(write_result(result, output))


class RecordClock(Callback):
    """Adds up the parts; waits for the device where one begins and ends, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = {"setup_s": 0.0, "train_s": 0.0, "test_s": 0.0, "closing_s": 0.0}
        self._began = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._start()  # the module's own setup comes next, which computes the filters

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("setup_s")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("train_s")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("train_s")
        self._start()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("closing_s")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("test_s")
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "record_clock.json").write_text(json.dumps(self.seconds) + "\n", encoding="utf-8")

    def _start(self) -> None:
        self._began = now()

    def _stop(self, part: str) -> None:
        self.seconds[part] += now() - self._began


def now() -> float:
    """Returns the seconds of a monotonic clock, once the GPU has finished all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def read_clock(folder: Path) -> dict[str, float]:
    """Returns the seconds of each part, `record_s` as the records count, `with_closing_s` with the last checkpoint."""
    plain: dict[str, Any] = json.loads((folder / "record_clock.json").read_text(encoding="utf-8"))
    parts = {name: float(value) for name, value in plain.items()}
    record = parts["setup_s"] + parts["train_s"] + parts["test_s"]
    return {**parts, "record_s": record, "with_closing_s": record + parts["closing_s"]}


def run_once(overrides: list[str], seed: int) -> dict[str, float]:
    """Returns the numbers of one run in this process, without printing its tables."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = arclight.run([*overrides, CLOCK, f"seed={seed}"])
    return {**read_clock(run.folder), **{key: float(run.results[key]) for key in RECORDED if key in run.results}}


def printed(name: str, numbers: dict[str, float]) -> dict[str, float]:
    """Prints the most important numbers and returns all of them."""
    print(f"{name}: accuracy {numbers['test/accuracy']:.4f}, {numbers['record_s']:.3f} s", flush=True)
    return numbers


def to_case(name: str, rounds: list[dict[str, float]]) -> Case:
    """Returns the figures of every number that all rounds have."""
    units: dict[str, Any] = {
        **RECORDED,
        **dict.fromkeys(("setup_s", "train_s", "test_s", "closing_s", "record_s", "with_closing_s"), "s"),
    }
    keys = [key for key in units if all(key in numbers for numbers in rounds)]
    return Case(name, {}, {key: Figure(tuple(numbers[key] for numbers in rounds), units[key]) for key in keys})


if __name__ == "__main__":
    main()
