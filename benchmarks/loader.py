"""How fast batches come, with nothing trained on them, compared with a DataLoader with transforms of single samples.

    python -m benchmarks.loader --against dataloader

Ours is measured in this process: whole epochs of the loaders of a run, images augmented and converted to what a net takes. The
baselines are dataloader_loop and tagger_loop with --only-load, each a process of its own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import Log, count, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, interleave_with_peaks, make_result, ratio
from arclight.benchmark.training_step import compose, with_defaults
from arclight.checkpoint.contents import build_module
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.data.datamodule import DataModule
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, measure_peaks, synchronize
from arclight.interfaces import num_samples, unit_counts
from arclight.runs import build
from benchmarks.tasks import TASKS, TaskOptions, batches, new_parser
from benchmarks.training import run_baseline
from project.lightning_modules.image_classifier import ImageClassifier

PACKINGS = ("buckets", "rows", "none")
DEFAULTS = {
    "images": {**TASKS["images"], "data.augment.crop": "4", "data.augment.flip": "true"},
    "text": {**TASKS["text"], "data.num_train": "8000"},
}
NUM_WARMUP = 3  # batches before the clock starts
UNITS = {"batches": "1/s", "samples": "1/s", "tokens": "1/s", "bytes": "B/s"}


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What the command line says; `workers` are the numbers of worker processes of the DataLoader."""

    against: str | None = None
    workers: Sequence[int] | None = None
    num_batches: int = 100


def measure(options: Options, log: Log) -> Result:
    """Loads in every way in every round.

    Raises:
        InputError: for an error in the overrides.
        RuntimeError: when a baseline fails, with the end of its output.
    """
    hardware_info, device = hardware.probe(), choose_device(options.device)
    overrides = with_defaults(options.overrides, DEFAULTS[options.task])
    settings = compose(overrides)
    plan = plan_hardware(settings, hardware_info)
    log("data")
    calls: dict[str, Callable[[], dict[str, float]]] = {
        name: timer(data, prepare, options.num_batches, device)
        for name, data, prepare in sources(overrides, options.task, num_workers=plan["workers"].value)
    }
    baseline, num_cores = "dataloader" if options.task == "images" else "tagger_loop", hardware_info.num_cores
    for number in (options.workers or (0, num_cores)) if options.against else ():
        own = ("--only-load", "--workers", str(number))
        calls[f"DataLoader, {number} workers"] = lambda own=own: run_baseline(  # type: ignore[misc]
            baseline, options.num_batches, overrides, num_threads=num_cores, options=own
        )
    measured, machine = interleave_with_peaks(
        calls, options.num_rounds, functools.partial(measure_peaks, device, hardware_info)
    )
    cases = to_cases(measured, machine)
    about = {"task": options.task, "overrides": list(overrides), "num_batches": options.num_batches}
    return make_result(f"loader-{settings['name']}", cases, machine, plan, about, num_rounds=options.num_rounds)


def sources(overrides: list[str], task: str, *, num_workers: int) -> Iterator[tuple[str, DataModule, Callable[[Any], Any]]]:
    """Yields our ways to make batches: a name, the data, and what converts a batch to what the net takes."""
    kinds = [("arclight", [])] if task == "images" else [(f"arclight, {kind}", [f"data.packing={kind}"]) for kind in PACKINGS]
    for name, own in kinds:
        settings = compose([*overrides, *own])
        data = build.build_data(settings, workers=num_workers)
        data.prepare_data()
        data.setup("fit")
        assert data.data_info is not None
        module = build_module(settings, data.data_info) if task == "images" else None
        yield name, data, normalizing(module) if isinstance(module, ImageClassifier) else lambda batch: None


def normalizing(module: ImageClassifier) -> Callable[[Any], Tensor]:
    """Returns a call that makes pixels floats and normalizes them, as the transforms of the baseline do."""
    return lambda batch: module.normalize(batch.images)


def timer(
    data: DataModule, prepare: Callable[[Any], Any], num_batches: int, device: torch.device
) -> Callable[[], dict[str, float]]:
    """Returns a call that takes so many batches and returns batches, samples, tokens and bytes per second."""

    def measure() -> dict[str, float]:
        began = samples = tokens = size = 0.0
        for number, batch in enumerate(batches(data, NUM_WARMUP + num_batches, device)):
            if number == NUM_WARMUP:
                synchronize(device)
                began = time.perf_counter()
            prepared = prepare(batch)
            if number >= NUM_WARMUP:
                samples += num_samples(batch)
                tokens += unit_counts(batch).get("tokens", 0)
                tensors = [prepared] if isinstance(prepared, Tensor) else [part for part in batch if isinstance(part, Tensor)]
                size += sum(tensor.nbytes for tensor in tensors)
        synchronize(device)
        return rates(time.perf_counter() - began, num_batches, samples, tokens, size)

    return measure


def rates(seconds: float, num_batches: int, samples: float, tokens: float, size: float) -> dict[str, float]:
    """Returns what was done per second; no tokens where there are none."""
    numbers = {"batches": num_batches / seconds, "samples": samples / seconds, "bytes": size / seconds}
    return numbers | ({"tokens": tokens / seconds} if tokens else {})


def to_cases(measured: Mapping[str, list[dict[str, float]]], machine: MeasuredPeaks) -> list[Case]:
    """Returns each way with its speed, the first one over it, and its fraction of the bandwidth of copies.

    A copy reads a byte and writes one: a batch cannot come faster than a copy of its bytes.
    """
    cases: list[Case] = []
    for name, rounds in measured.items():
        own = {key: Figure(tuple(numbers[key] for numbers in rounds), unit) for key, unit in UNITS.items() if key in rounds[0]}
        if "bytes" in own:
            own["copy_share"] = Figure(tuple(2 * value / machine.copy_bytes_per_s for value in own["bytes"].values), "")
        if cases:
            per = "tokens" if "tokens" in own else "samples"
            own["factor"] = ratio(cases[0].figures[per], own[per])
        cases.append(Case(name, {}, own))
    return cases


def to_table(result: Result) -> Table:
    """Returns a row for each way to make batches."""
    headings = {"batches": "batches/s", "samples": "samples/s", "tokens": "tokens/s"}
    headings |= {"factor": f"{result.cases[0].name} over it", "copy_share": "of copy speed"}
    return measurement.to_table(result, headings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--against", choices=("dataloader",), help="also torch's DataLoader with transforms of single samples")
    parser.add_argument(
        "--workers", type=worker_counts, metavar="N,N...", help="its worker processes; default: 0, and one per core"
    )
    parser.add_argument("--batches", type=count, default=100, dest="num_batches", help="measured in each round (%(default)s)")
    with report_errors():
        run_benchmark(parser.parse_args(arguments), Options, measure, lambda result: [to_table(result)])


def worker_counts(text: str) -> list[int]:
    """Returns the numbers of "0,2", for argparse; 0 is no worker."""
    return sorted({0 if number == "0" else count(number) for number in text.split(",")})


if __name__ == "__main__":
    main()
