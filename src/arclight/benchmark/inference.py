"""`benchmark inference`: the forward pass alone, by batch size and by what makes it fast; samples a second and latency.

Latency is that of single calls, each waited for; the rate follows from it, as a server that answers one batch after another
has it. The tagger's useful work is its real tokens, in each way to put sentences into batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from arclight import hardware
from arclight.benchmark.backend import Backend, applied, autocast
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.precision import NUM_FIRST, limits
from arclight.benchmark.training_step import Sample, made_data, make_sample, on_device, with_defaults, with_layout
from arclight.callbacks.flops import copy_to_meta
from arclight.checkpoint.contents import build_module
from arclight.errors import InputError, first_line
from arclight.hardware.peak_measurement import (
    MeasuredPeaks,
    choose_device,
    measure_peaks,
    seconds_of,
    synchronize,
    unavailable_precisions,
)
from arclight.images.info import ImageBatch, ImageInfo
from arclight.modules.supervised import SupervisedModule

SIZES = (1, 4, 16, 64, 256)
PACKINGS = ("none", "buckets", "rows")
BACKENDS = (
    Backend(),
    Backend(channels_last=True),
    Backend(precision="bf16"),
    Backend(precision="bf16", channels_last=True),
    Backend(compile=True),
    Backend(precision="bf16", channels_last=True, compile=True),
)
ROUND_S = 0.3  # of calls of one case in one round


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Raises:
        InputError: for a number out of its range.
    """

    model: str = "cnn"
    sizes: tuple[int, ...] = SIZES
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    skip: tuple[str, ...] = ()
    num_rounds: int = 5
    round_s: float = ROUND_S

    def __post_init__(self) -> None:
        check_counts({"--repeats": self.num_rounds})
        for size in self.sizes:
            if size < 1:
                raise InputError(f"--batch-sizes {size} must be 1 or more")


def measure_inference(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine.

    Raises:
        InputError: for an unknown model or override, or a device that is not here.
    """
    device, hardware_info = choose_device(wish.device), hardware.probe()
    defaults = {**made_data(wish.model), "data.num_train": str(max(2048, *wish.sizes))}
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)
    reasons = unavailable_precisions(device, hardware_info)
    settings: dict[str, Any] = {}
    measured: dict[str, Callable[[], list[float]]] = {}
    described: dict[str, tuple[Backend, Sample, str, float]] = {}
    missing: list[Case] = []
    for size in wish.sizes:
        for packing in PACKINGS if made_data(wish.model)["data"] == "synthetic_text" else ("",):
            own = [f"data.batch_size={size}", *([f"data.packing={packing}"] if packing else [])]
            sample = make_sample([*with_defaults(wish.overrides, defaults), *own])
            settings = sample.settings
            for backend in backends_for(sample, wish.skip):
                name = ", ".join(part for part in (f"batch {size}", packing, backend.name) if part)
                if (reason := reasons[backend.precision]) is not None:
                    missing.append(Case(name, asdict(backend), missing=f"not on this device: {reason}"))
                    continue
                tell(f"first calls: {name}")
                try:
                    call = Forward(sample, backend, device)
                    seconds_of(call, NUM_FIRST, device)
                except Exception as error:  # whatever a compiler or a kernel raises: the others can still be measured
                    missing.append(Case(name, asdict(backend), missing=f"failed: {type(error).__name__}: {first_line(error)}"))
                    continue
                measured[name] = latencies(call, device, wish.round_s)
                described[name] = (backend, sample, packing, count_forward(call.task, sample))
    tell(f"{len(measured)} cases, {wish.num_rounds} rounds")
    rounds = interleave(measured, wish.num_rounds)
    cases = [to_case(name, *described[name], machine, rounds[name]) for name in described]
    about = {"model": wish.model, "overrides": list(wish.overrides), "batch_sizes": list(wish.sizes)}
    plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
    return Result(f"inference-{wish.model}", gather_facts(machine, plan, about, num_rounds=wish.num_rounds), (*cases, *missing))


def backends_for(sample: Sample, skip: Sequence[str]) -> list[Backend]:
    """The switches that make a difference to this kind of data, in the order of BACKENDS."""
    has_images = isinstance(sample.data_info, ImageInfo)
    made: list[Backend] = []
    for backend in BACKENDS:
        given = Backend(backend.precision, channels_last=backend.channels_last and has_images, compile=backend.compile)
        if given not in made and not (given.compile and "compile" in skip):
            made.append(given)
    return made


class Forward:
    """Call it to run the net once over the sample's batch, as `evaluate` would with this backend."""

    def __init__(self, sample: Sample, backend: Backend, device: torch.device) -> None:
        self.backend, self.device = backend, device
        task = build_module(with_layout(sample.settings, sample.data_info, backend), sample.data_info).to(device)
        self.task: SupervisedModule = task.eval()
        self.given = inputs_of(on_device(sample.batch, device))
        if backend.compile:
            task.net.compile()

    def __call__(self) -> None:
        with torch.inference_mode(), applied(self.backend), autocast(self.backend, self.device):
            self.task(*self.given)


def inputs_of(batch: Any) -> tuple[Tensor | None, ...]:
    """What a task's forward takes of a batch."""
    return (batch.images,) if isinstance(batch, ImageBatch) else (batch.input_ids, batch.attention_mask, batch.position_ids)


def count_forward(task: SupervisedModule, sample: Sample) -> float:
    """FLOPs of the products and convolutions of a forward pass; of text those of the real subwords, padding is no work."""
    from torch.utils.flop_counter import FlopCounterMode

    ghost = copy_to_meta(task).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(*inputs_of(on_device(sample.batch, torch.device("meta"))))
    real_share = sample.work.tokens / sample.work.positions if sample.work.positions else 1.0
    return counter.get_total_flops() * real_share


def latencies(call: Callable[[], None], device: torch.device, round_s: float) -> Callable[[], list[float]]:
    """A call that gives the seconds of single calls, as many as fit into a round, three at least."""
    num_calls = max(3, round(round_s / max(seconds_of(call, 1, device), 1e-6)))

    def measure() -> list[float]:
        seconds_of(call, 1, device)  # brings the caches back that another case has emptied
        seconds = []
        for _ in range(num_calls):
            began = time.perf_counter()
            call()
            synchronize(device)
            seconds.append(time.perf_counter() - began)
        return seconds

    return measure


def to_case(
    name: str,
    backend: Backend,
    sample: Sample,
    packing: str,
    flops: float,
    machine: MeasuredPeaks,
    rounds: Sequence[Sequence[float]],
) -> Case:
    """What follows from the times of single calls: per round their median, the 95th percentile, and what was done a second."""
    means = [sum(seconds) / len(seconds) for seconds in rounds]
    figures = {
        "latency": Figure(tuple(float(np.median(seconds)) * 1000 for seconds in rounds), "ms"),
        "latency_p95": Figure(tuple(float(np.percentile(seconds, 95)) * 1000 for seconds in rounds), "ms"),
        "samples": Figure(tuple(sample.work.samples / mean for mean in means), "1/s"),
        "peak_share": Figure(tuple(flops / mean / machine.flops[backend.precision] for mean in means), ""),
    }
    if sample.work.tokens:
        figures["tokens"] = Figure(tuple(sample.work.tokens / mean for mean in means), "1/s")
    num_calls = len(rounds[0])
    settings = {**asdict(backend), **sample.work._asdict(), "packing": packing or None, "flops": flops, "num_calls": num_calls}
    return Case(name, settings, figures)


def to_table(result: Result) -> Table:
    """A row for each case, batch by batch."""
    title = f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("")
    shown: Mapping[str, str] = {
        "samples": "samples/s",
        "tokens": "real tokens/s",
        "latency": "latency, ms",
        "latency_p95": "p95, ms",
    }
    shown = {key: heading for key, heading in shown.items() if any(key in case.figures for case in result.cases)}
    for heading in (*shown.values(), "share of peak"):
        table.add_column(heading, justify="right")
    for case in result.cases:
        if case.missing is None:
            cells = [case.figures[key].to_text() for key in shown]
            table.add_row(case.name, *cells, f"{significant(100 * case.figures['peak_share'].median, 2)}%")
    told = [f"{case.name}: {case.missing}" for case in result.cases if case.missing is not None]
    table.caption = Text("\n".join([limits(result.facts["machine"]), *told]))
    return table
