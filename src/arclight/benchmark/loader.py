"""`benchmark loader`: how fast batches come, with nothing trained on them, beside a DataLoader with per-sample transforms.

Ours is measured in this process: whole epochs as the loaders of a run give them, images augmented and turned into what a net
takes. The baselines are the programs in benchmarks/ with --only-load, each a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, ratio, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.precision import limits
from arclight.benchmark.raw_loop import batches
from arclight.benchmark.scaling import TASKS
from arclight.benchmark.training import run_baseline
from arclight.benchmark.training_step import compose, with_defaults
from arclight.checkpoint.contents import build_module
from arclight.config.hardware_plan import plan_hardware
from arclight.data.datamodule import DataModule
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, measure_peaks, synchronize
from arclight.images.info import ImageBatch
from arclight.runs import build
from arclight.text.info import TokenBatch
from project.lightning_modules.image_classifier import ImageClassifier

PACKINGS = ("buckets", "rows", "none")
DEFAULTS = {
    "images": {**TASKS["images"], "data.augment.crop": "4", "data.augment.flip": "true"},
    "text": {**TASKS["text"], "data.num_train": "8000"},
}
NUM_FIRST = 3  # batches before the clock starts


@dataclass(frozen=True)
class Wish:
    """What the user asked for; `workers` are the numbers of worker processes that the DataLoader is tried with.

    Raises:
        InputError: for a number out of its range.
    """

    task: str = "images"
    against_dataloader: bool = False
    workers: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    num_batches: int = 100
    num_rounds: int = 5

    def __post_init__(self) -> None:
        check_counts({"--repeats": self.num_rounds, "--batches": self.num_batches})
        for number in self.workers:
            if number < 0:
                raise InputError(f"--workers {number} must be 0 or more")


def measure_loader(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine.

    Raises:
        InputError: for a wish that this machine or the config cannot fulfil.
        RuntimeError: when a baseline fails, with what it said.
    """
    hardware_info, device = hardware.probe(), choose_device(wish.device)
    overrides = with_defaults(wish.overrides, DEFAULTS[wish.task])
    settings = compose(overrides)
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)
    plan = plan_hardware(settings, hardware_info)
    tell("data")
    calls: dict[str, Callable[[], dict[str, float]]] = {
        name: told(tell, name, timer(data, prepare, wish.num_batches, device))
        for name, data, prepare in sources(overrides, wish.task, num_workers=plan["workers"].value)
    }
    ours = next(iter(calls))
    for number in (wish.workers or (0, hardware_info.num_cores)) if wish.against_dataloader else ():
        name = f"DataLoader, {number} workers"
        calls[name] = told(tell, name, baseline(wish, overrides, number, hardware_info.num_cores))
    cases = to_cases(interleave(calls, wish.num_rounds), machine, ours=ours)
    described = {"task": wish.task, "overrides": list(overrides), "num_batches": wish.num_batches}
    facts_of_it = gather_facts(machine, plan, described, num_rounds=wish.num_rounds)
    return Result(f"loader-{settings['name']}", facts_of_it, tuple(cases))


def told(tell: Tell, name: str, call: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
    """The call, which says its name first."""

    def measured() -> dict[str, float]:
        tell(name)
        return call()

    return measured


def sources(overrides: list[str], task: str, *, num_workers: int) -> Iterator[tuple[str, DataModule, Callable[[Any], Any]]]:
    """Our ways to make batches: a name, the data, and what turns a batch into what the net takes."""
    kinds = [("arclight", [])] if task == "images" else [(f"arclight, {kind}", [f"data.packing={kind}"]) for kind in PACKINGS]
    for name, own in kinds:
        settings = compose([*overrides, *own])
        data = build.build_data(settings, workers=num_workers)
        data.prepare_data()
        data.setup("fit")
        assert data.data_info is not None
        built = build_module(settings, data.data_info) if task == "images" else None
        yield name, data, normalised(built) if isinstance(built, ImageClassifier) else nothing_more


def normalised(task: ImageClassifier) -> Callable[[ImageBatch], Tensor]:
    """Pixels as the net takes them: float, normalised, as the baseline's transforms give them."""
    return lambda batch: task.normalize(batch.images)


def nothing_more(batch: TokenBatch) -> None:
    """Text is taken as the loader gives it."""


def timer(
    data: DataModule, prepare: Callable[[Any], Any], num_batches: int, device: torch.device
) -> Callable[[], dict[str, float]]:
    """A call that takes so many batches, epoch after epoch, and gives batches, samples, real tokens and bytes a second."""

    def measure() -> dict[str, float]:
        began = samples = tokens = size = 0.0
        for number, batch in enumerate(batches(data, NUM_FIRST + num_batches, device)):
            if number == NUM_FIRST:
                synchronize(device)
                began = time.perf_counter()
            made = prepare(batch)
            if number >= NUM_FIRST:
                samples += len(batch.indices)
                tokens += batch.num_tokens if isinstance(batch, TokenBatch) else 0
                size += made.nbytes if isinstance(made, Tensor) else sum(p.nbytes for p in batch if isinstance(p, Tensor))
        synchronize(device)
        return rates(time.perf_counter() - began, num_batches, samples, tokens, size)

    return measure


def rates(seconds: float, num_batches: int, samples: float, tokens: float, size: float) -> dict[str, float]:
    """What was done in so many seconds, per second; no tokens where there are none."""
    numbers = {"batches": num_batches / seconds, "samples": samples / seconds, "bytes": size / seconds}
    return numbers | ({"tokens": tokens / seconds} if tokens else {})


def baseline(wish: Wish, overrides: list[str], num_workers: int, num_threads: int) -> Callable[[], dict[str, float]]:
    """A call that measures the DataLoader of the tutorials in a process of its own."""
    name = "dataloader" if wish.task == "images" else "tagger_loop"
    options = ("--only-load", "--workers", str(num_workers))
    return lambda: run_baseline(name, wish.num_batches, overrides, num_threads=num_threads, options=options)


def to_cases(measured: Mapping[str, list[dict[str, float]]], machine: MeasuredPeaks, *, ours: str) -> list[Case]:
    """Each way to make batches with its speed, ours over it, and its share of what the machine can copy.

    A copy reads a byte and writes one, so a batch of so many bytes cannot come in less than a copy of it takes.
    """
    units = {"batches": "1/s", "samples": "1/s", "tokens": "1/s", "bytes": "B/s"}
    figures = {
        name: {key: Figure(tuple(numbers[key] for numbers in rounds), unit) for key, unit in units.items() if key in rounds[0]}
        for name, rounds in measured.items()
    }
    cases = []
    for name, own in figures.items():
        if "bytes" in own:
            own["copy_share"] = Figure(tuple(2 * value / machine.copy_bytes_per_s for value in own["bytes"].values), "")
        if name != ours:
            per = "tokens" if "tokens" in own else "samples"
            own["factor"] = ratio(figures[ours][per], own[per])
        cases.append(Case(name, {}, own))
    return cases


def to_table(result: Result) -> Table:
    """A row for each way to make batches."""
    ours = result.cases[0].name
    title = f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("")
    shown = {"batches": "batches/s", "samples": "samples/s", "tokens": "real tokens/s", "factor": f"{ours} over it"}
    shown = {key: heading for key, heading in shown.items() if any(key in case.figures for case in result.cases)}
    for heading in (*shown.values(), "share of copy speed"):
        table.add_column(heading, justify="right")
    for case in result.cases:
        cells = [case.figures[key].to_text() if key in case.figures else "" for key in shown]
        share = case.figures.get("copy_share")
        table.add_row(case.name, *cells, "" if share is None else f"{significant(100 * share.median, 2)}%")
    table.caption = Text(limits(result.facts["machine"]))
    return table
