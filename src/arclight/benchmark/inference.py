"""`benchmark inference`: the forward pass of a config by batch size and settings of torch: samples per second and latency.

Latency is that of single calls, each waited for. The rate follows from it: that of a server that answers one batch at a time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.throughput import measure_flops
from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log
from arclight.benchmark.measurement import Case, Figure, Result, interleave_with_peaks, make_result
from arclight.benchmark.training_step import (
    Backend,
    Sample,
    applied,
    autocast,
    make_sample,
    module_for,
    takes_channels_last,
    warm_up,
)
from arclight.callbacks.flops import copy_to_meta
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware import peak_measurement
from arclight.hardware.peak_measurement import choose_device, measure_peaks, seconds_of, unavailable_precisions
from arclight.interfaces import example_inputs

BACKENDS = (
    Backend(),
    Backend(channels_last=True),
    Backend(precision="bf16"),
    Backend(precision="bf16", channels_last=True),
    Backend(compile=True),
    Backend(precision="bf16", channels_last=True, compile=True),
)
HEADINGS = {"samples": "samples/s", "tokens": "tokens/s", "latency": "latency, ms", "latency_p95": "p95, ms"}


@dataclass(frozen=True, kw_only=True)
class Options(BenchmarkOptions):
    """What `benchmark inference` is given: batch sizes, switches to leave out, seconds of calls per case and round."""

    sizes: Sequence[int] = (1, 4, 16, 64, 256)
    skip: Sequence[str] = ()
    round_s: float = 0.3


class Forward:
    """Runs the net once over the sample's batch each time it is called, with the settings of the backend."""

    def __init__(self, sample: Sample, backend: Backend, device: torch.device) -> None:
        self.sample, self.backend, self.device = sample, backend, device
        self.module = module_for(sample, backend, device).eval()
        self.inputs = example_inputs(move_data_to_device(sample.batch, device))

    def __call__(self) -> None:
        with torch.inference_mode(), applied(self.backend), autocast(self.backend, self.device):
            self.module(*self.inputs)

    def flops(self) -> float:
        """Returns the FLOPs of the matrix products and convolutions of one call, the fraction of padding left out."""
        ghost, inputs = copy_to_meta(self.module).eval(), move_data_to_device(self.inputs, torch.device("meta"))
        work = self.sample.work
        useful = work.tokens / work.positions if work.positions else 1.0
        with torch.no_grad():
            return useful * measure_flops(ghost, lambda: ghost(*inputs))


def measure(options: Options, log: Log) -> Result:
    """Measures every batch size with every setting that this device has.

    Raises:
        InputError: for an error in the overrides, a device that is not there, or a batch larger than the training split.
    """
    device, hardware_info = choose_device(options.device), hardware.probe()
    samples = {size: make_sample([*options.overrides, f"data.batch_size={size}"]) for size in options.sizes}
    settings = next(iter(samples.values())).settings
    reasons = unavailable_precisions(device, hardware_info)
    backends = {
        f"batch {size}, {backend.name}": (sample, backend)
        for size, sample in samples.items()
        for backend in backends_for(sample, options.skip)
    }
    makers = {
        name: functools.partial(Forward, sample, backend, device)
        for name, (sample, backend) in backends.items()
        if reasons[backend.precision] is None
    }
    calls, _, missing = warm_up(makers, device, log)
    missing |= {name: f"not on this device: {reasons[backends[name][1].precision]}" for name in backends if name not in makers}
    log(f"{len(calls)} cases, {options.num_rounds} rounds")
    timers = {name: latencies(call, device, options.round_s) for name, call in calls.items()}
    peaks = functools.partial(measure_peaks, device, hardware_info)
    rounds, machine = interleave_with_peaks(timers, options.num_rounds, peaks)
    cases = [to_case(name, call, machine.flops[call.backend.precision], rounds[name]) for name, call in calls.items()]
    cases += [Case(name, asdict(backends[name][1]), missing=reason) for name, reason in missing.items()]
    about = {"model": settings["name"], "overrides": list(options.overrides), "batch_sizes": list(options.sizes)}
    plan = plan_hardware(settings, hardware_info)
    return make_result(f"inference-{settings['name']}", cases, machine, plan, about, num_rounds=options.num_rounds)


def backends_for(sample: Sample, skip: Sequence[str]) -> list[Backend]:
    """Returns the backends that make a difference to this config."""
    has_layout = takes_channels_last(sample.settings)
    backends = [replace(backend, channels_last=backend.channels_last and has_layout) for backend in BACKENDS]
    return [backend for backend in dict.fromkeys(backends) if not (backend.compile and "compile" in skip)]


def latencies(call: Callable[[], None], device: torch.device, round_s: float) -> Callable[[], list[float]]:
    """Returns a call that returns the seconds of single calls, as many as fit into a round, at least three."""
    num_calls = max(3, round(round_s / max(seconds_of(call, 1, device), 1e-6)))

    def measure() -> list[float]:
        seconds_of(call, 1, device)  # refills the caches after another case
        seconds = []
        for _ in range(num_calls):
            began = time.perf_counter()
            call()
            peak_measurement.synchronize(device)
            seconds.append(time.perf_counter() - began)
        return seconds

    return measure


def to_case(name: str, call: Forward, peak: float, rounds: Sequence[Sequence[float]]) -> Case:
    """Returns median and 95th percentile of the latency in each round, and rates; padding counts as no work."""
    work, flops = call.sample.work, call.flops()
    figures = {
        "latency": Figure(tuple(float(np.median(seconds)) * 1000 for seconds in rounds), "ms"),
        "latency_p95": Figure(tuple(float(np.percentile(seconds, 95)) * 1000 for seconds in rounds), "ms"),
        **work.figures(flops, peak, [len(seconds) / sum(seconds) for seconds in rounds]),
    }
    settings = {**asdict(call.backend), **work._asdict(), "flops": flops, "num_calls": len(rounds[0])}
    return Case(name, settings, figures)


def to_table(result: Result) -> Table:
    """Returns a row for each case."""
    return measurement.to_table(result, {**HEADINGS, "peak_share": "of peak"})
