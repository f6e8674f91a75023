"""`benchmark precision`: how each setting of torch and its libraries changes the speed of a config's training step.

All cases run in one process on the same net and batch, interleaved in rounds: first each change to the plain settings alone,
then every combination of the switches with the two precisions that were fastest alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log
from arclight.benchmark.measurement import Case, Figure, Result, interleave_with_peaks, make_result, ratio
from arclight.benchmark.training_step import SWITCHES, Backend, Sample, TrainingStep, make_sample, takes_channels_last, warm_up
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware.peak_measurement import (
    MeasuredPeaks,
    choose_device,
    largest,
    measure_peaks,
    seconds_of,
    unavailable_precisions,
)

PLAIN = Backend()
NUM_FAST_PRECISIONS = 2
HEADINGS = {
    "factor": "factor over plain",
    "step": "ms per step",
    "samples": "samples/s",
    "flops": "GFLOP/s",
    "peak_share": "of peak",
    "first_step": "first step, s",
}


@dataclass(frozen=True, kw_only=True)
class Options(BenchmarkOptions):
    """What `benchmark precision` is given: switches to leave out, such as compile; seconds of steps per case and round."""

    skip: Sequence[str] = ()
    round_s: float = 0.5


@dataclass(frozen=True)
class Subject:
    """The config that is measured, the device, and its peaks: all that were measured, and what measures them again."""

    sample: Sample
    device: torch.device
    peaks: list[MeasuredPeaks]
    measure_peaks: Callable[[], MeasuredPeaks]


def measure(options: Options, log: Log) -> Result:
    """Measures every setting that this device has.

    Raises:
        InputError: for an error in the overrides, or a device that is not there.
    """
    device, hardware_info = choose_device(options.device), hardware.probe()
    sample = make_sample(options.overrides)
    log("peaks of the device")
    peaks = [measure_peaks(device, hardware_info)]
    module = TrainingStep(sample, PLAIN, device).module
    reasons = unavailable_precisions(device, hardware_info)
    missing = find_missing(reasons, device, has_layout=takes_channels_last(sample.settings), skip=options.skip)
    subject = Subject(sample, device, peaks, functools.partial(measure_peaks, device, hardware_info))
    cases = measure_backends(subject, missing, options, log)
    settings = {
        "model": sample.settings["name"],
        "overrides": list(sample.overrides),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "flops_per_step": sample.flops,
        **sample.work._asdict(),
    }
    plan = plan_hardware(sample.settings, hardware_info)
    name = f"precision-{sample.settings['name']}"
    return make_result(name, cases, largest(peaks), plan, settings, num_rounds=options.num_rounds)


def find_missing(
    reasons: Mapping[str, str | None], device: torch.device, *, has_layout: bool, skip: Sequence[str]
) -> dict[str, str]:
    """Returns, by the name of its case, why a single change cannot be measured; `reasons` are those of the precisions."""
    missing = {name: f"not on this device: {reason}" for name, reason in reasons.items() if reason is not None}
    if device.type != "cuda":
        missing |= dict.fromkeys(("cudnn off", "cudnn benchmark"), "not on this device: cuDNN is a library for NVIDIA GPUs")
    if not has_layout:
        missing["channels last"] = "makes no difference: this module has no option channels_last"
    return missing | {switch.replace("_", " "): "left out (--without)" for switch in skip}


def single_changes() -> list[Backend]:
    """Returns the plain settings, and each change to them alone."""
    changed = [replace(PLAIN, precision=precision) for precision in ("tf32", "bf16", "fp16")]
    return [PLAIN, *changed, replace(PLAIN, cudnn=False), *(with_switches("fp32", [switch]) for switch in SWITCHES)]


def combinations(fast_precisions: Sequence[str], switches: Sequence[str]) -> list[Backend]:
    """Returns every combination of the switches with each of the precisions, without the single changes."""
    subsets = itertools.chain.from_iterable(itertools.combinations(switches, size) for size in range(len(switches) + 1))
    backends = itertools.starmap(with_switches, itertools.product(fast_precisions, list(subsets)))
    return [backend for backend in backends if backend not in single_changes()]


def with_switches(precision: str, switches: Sequence[str]) -> Backend:
    """Returns the plain backend with this precision and these switches turned on."""
    return replace(PLAIN, precision=precision, **dict.fromkeys(switches, True))


def measure_backends(subject: Subject, missing: Mapping[str, str], options: Options, log: Log) -> list[Case]:
    """Returns the single changes, those that are missing, and the combinations, compared with plain settings among them."""
    singles = [backend for backend in single_changes() if backend.name not in missing]
    alone = compare(subject, singles, options, log)
    unavailable = [Case(b.name, asdict(b), missing=missing[b.name]) for b in single_changes() if b.name in missing]
    steps = {case.name: case.figures["step"].median for case in alone if case.missing is None}
    names = {precision: with_switches(precision, []).name for precision in subject.peaks[0].flops}
    fast = sorted((precision for precision in names if names[precision] in steps), key=lambda key: steps[names[key]])
    switches = [switch for switch in SWITCHES if switch.replace("_", " ") in steps]
    if not (combined := combinations(fast[:NUM_FAST_PRECISIONS], switches)):
        return [*alone, *unavailable]
    return [*alone, *unavailable, *compare(subject, [PLAIN, *combined], options, log)[1:]]


def compare(subject: Subject, backends: Sequence[Backend], options: Options, log: Log) -> list[Case]:
    """Returns a case for each backend, its factor over the first of them; a backend that fails has the error as reason.

    Raises:
        RuntimeError: when the first one fails.
    """
    makers = {b.name: functools.partial(TrainingStep, subject.sample, b, subject.device, is_frozen=True) for b in backends}
    steps, first_s, failed = warm_up(makers, subject.device, log)
    if backends[0].name in failed:
        raise RuntimeError(f"{backends[0].name}: {failed[backends[0].name]}")
    log(f"{len(steps)} settings, {options.num_rounds} rounds")
    timers = {name: timer(step, subject.device, options.round_s) for name, step in steps.items()}
    measured, machine = interleave_with_peaks(timers, options.num_rounds, subject.measure_peaks)
    subject.peaks.append(machine)
    plain_ms = measured[backends[0].name]
    return [
        to_case(backend, subject, measured[backend.name], plain_ms, first_s[backend.name])
        if backend.name in steps
        else Case(backend.name, asdict(backend), missing=failed[backend.name])
        for backend in backends
    ]


def timer(step: TrainingStep, device: torch.device, round_s: float) -> Callable[[], float]:
    """Returns a call that takes steps for so many seconds and returns the milliseconds of one."""
    num_steps = max(1, round(round_s / seconds_of(step, 1, device)))

    def measure() -> float:
        seconds_of(step, 1, device)  # refills the caches after another case
        return 1000 * seconds_of(step, num_steps, device) / num_steps

    return measure


def to_case(backend: Backend, subject: Subject, ms: Sequence[float], plain_ms: Sequence[float], first_s: float) -> Case:
    """Returns the figures that follow from the milliseconds of the backend's steps and of the plain ones."""
    step, peak = Figure(tuple(ms), "ms"), largest(subject.peaks).flops[backend.precision]
    figures = {
        "step": step,
        "factor": ratio(Figure(tuple(plain_ms), "ms"), step),
        **subject.sample.work.figures(subject.sample.flops, peak, [1000 / value for value in ms]),
        "first_step": Figure((first_s,), "s"),
    }
    return Case(backend.name, asdict(backend), figures)


def to_table(result: Result) -> Table:
    """Returns a row for each setting, and the fastest below."""
    measured = [case for case in result.cases if case.missing is None]
    best = max(measured, key=lambda case: case.figures["factor"].median)
    samples = result.metadata["settings"]["samples"]
    notes = [f"{samples} samples per step; fastest: {best.name}, {best.figures['factor'].to_text()}"]
    return measurement.to_table(result, HEADINGS, notes=notes)
