"""`benchmark scaling`: how much faster a config trains on more devices.

Every case is a real `python train.py`, several times over, interleaved. Strong scaling splits the same global batch over the
devices; weak scaling gives each device as much as one had. On the CPU a device is a process with its part of the cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import BenchmarkOptions, Log
from arclight.benchmark.measurement import Case, Result, interleave_with_peaks, make_result, ratio
from arclight.benchmark.train import figures_of, numbers_of, precision_of, steady, train
from arclight.benchmark.training_step import compose, key_of, with_defaults
from arclight.config.hardware_plan import plan_hardware
from arclight.errors import InputError
from arclight.hardware.devices import check_devices
from arclight.hardware.peak_measurement import choose_device, measure_peaks

OWN_KEYS = {"trainer.devices": "--devices", "strategy": "--devices", "trainer": "--device"}
HEADINGS = {"samples": "samples/s", "step": "ms per step", "speedup": "speed-up", "efficiency": "efficiency"}


@dataclass(frozen=True)
class Job:
    """One case: how many devices, threads of each process, the global batch, and its overrides.

    `kind` is "one" (a device), "strong" or "weak".
    """

    name: str
    kind: str
    num_devices: int
    num_threads: int
    batch_size: int
    overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Options(BenchmarkOptions):
    """What `benchmark scaling` is given; `devices` None is every number of GPUs, or 1 and 2 processes."""

    devices: Sequence[int] | None = None
    num_steps: int = 60


def measure(options: Options, log: Log) -> Result:
    """Trains on every number of devices, in every round.

    Raises:
        InputError: for an error in the overrides, devices that are not there, or a batch that they do not divide.
        RuntimeError: when a run fails, with the end of its output.
    """
    for override in options.overrides:
        if (key := key_of(override)) in OWN_KEYS:
            raise InputError(f"{override}: the benchmark sets {key} for each case; use {OWN_KEYS[key]}")
    is_cpu, hardware_info = choose_device(options.device).type == "cpu", hardware.probe()
    counts = device_counts(options.devices, hardware_info, is_cpu=is_cpu)
    batch_size = int(compose(options.overrides)["data"]["batch_size"])
    return measure_jobs("scaling", plan_jobs(counts, hardware_info.num_cores, batch_size, is_cpu=is_cpu), options, log)


def device_counts(requested: Sequence[int] | None, hardware_info: hardware.HardwareInfo, *, is_cpu: bool) -> Sequence[int]:
    """Returns the numbers of devices to compare.

    Raises:
        InputError: for a number out of range, or less than two devices.
    """
    counts = requested or ((1, 2) if is_cpu else tuple(range(1, len(hardware_info.gpus) + 1)))
    check_devices(hardware_info, "cpu" if is_cpu else "cuda", max(counts))
    if max(counts) == 1:
        raise InputError("--devices 1: scaling needs two devices or more. Try: --device cpu --devices 1,2")
    return counts


def plan_jobs(counts: Sequence[int], num_cores: int, batch_size: int, *, is_cpu: bool) -> list[Job]:
    """Returns the cases: one device (a process with all cores, and with as many as each of several has), then several devices.

    Raises:
        InputError: when a number of devices does not divide the batch.
    """
    unit, place, strategy = ("processes", "cpu", "ddp_cpu") if is_cpu else ("GPUs", "gpu", "ddp")

    def single(threads: int) -> Job:
        name = f"1 process, {threads} {'thread' if threads == 1 else 'threads'}" if is_cpu else "1 GPU"
        own = (f"trainer={place}", "strategy=single", f"data.batch_size={batch_size}")
        return Job(name, "one", 1, threads, batch_size, own)

    jobs = [single(num_cores)]
    for count in counts:
        threads = max(1, num_cores // count)
        if is_cpu and single(threads) not in jobs:
            jobs.append(single(threads))
        hardware.accumulation_steps(batch_size, count, None)  # raises where the batch is not divisible
        for kind, size in (("strong", batch_size), ("weak", batch_size * count)) if count > 1 else ():
            own = (f"trainer={place}", f"strategy={strategy}", f"trainer.devices={count}", f"data.batch_size={size}")
            jobs.append(Job(f"{count} {unit}, {kind}", kind, count, threads, size, own))
    return jobs


def measure_jobs(
    name: str, jobs: Sequence[Job], options: Options, log: Log, *, train: Callable[..., dict[str, Any]] = train
) -> Result:
    """Runs every job in every round; `train` is called as `train.train` is."""
    hardware_info, device = hardware.probe(), choose_device(options.device)
    common = steady(with_defaults(options.overrides, {"logger": "none"}), options.num_steps)
    commands = {job.name: [*without_keys(common, job.overrides), *job.overrides] for job in jobs}
    settings = {job.name: compose(commands[job.name]) for job in jobs}  # every error is raised before anything is started
    calls = {job.name: functools.partial(train, commands[job.name], num_threads=job.num_threads) for job in jobs}
    measure = functools.partial(measure_peaks, device, hardware_info)
    measured, machine = interleave_with_peaks(calls, options.num_rounds, measure, log)
    plans = {key: plan_hardware(own, hardware_info) for key, own in settings.items()}
    is_shared = device.type == "cpu"  # all processes compute on the same cores
    peaks = {
        job.name: machine.flops.get(precision_of(plans[job.name]), 0.0) * (1 if is_shared else job.num_devices) for job in jobs
    }
    one = next(job.name for job in jobs if job.kind == "one")
    about = {"overrides": common, "num_steps": options.num_steps}
    name = f"{name}-{settings[one]['name']}"
    return make_result(name, to_cases(jobs, measured, peaks), machine, plans[one], about, num_rounds=options.num_rounds)


def without_keys(common: Sequence[str], own: Sequence[str]) -> list[str]:
    """Returns the common overrides without those that the job's own replace."""
    replaced = {key_of(override) for override in own}
    return [override for override in common if key_of(override) not in replaced]


def to_cases(
    jobs: Sequence[Job], measured: Mapping[str, Sequence[Mapping[str, Any]]], peaks: Mapping[str, float]
) -> list[Case]:
    """Returns the figures of every job, round by round.

    `speedup` is samples per second over those of one device (on the CPU: of one process with all cores). `efficiency` compares
    with one device of as many threads and is 1 when nothing is lost: T(1) / (n T(n)) for strong scaling, T(1) / T(n) for weak
    scaling, where T is the time of a step.
    """
    figures = {job.name: figures_of([numbers_of(run) for run in measured[job.name]], peaks[job.name]) for job in jobs}
    ones = {job.num_threads: job.name for job in jobs if job.kind == "one"}
    whole = next(job.name for job in jobs if job.kind == "one")
    cases = []
    for job in jobs:
        own = {**figures[job.name], "speedup": ratio(figures[job.name]["samples"], figures[whole]["samples"])}
        if job.kind in ("strong", "weak"):
            expected = 1 / job.num_devices if job.kind == "strong" else 1.0
            own["efficiency"] = ratio(figures[ones.get(job.num_threads, whole)]["step"], own["step"], factor=expected)
        cases.append(Case(job.name, {**asdict(job), "overrides": list(job.overrides)}, own))
    return cases


def to_table(result: Result, *, headings: Mapping[str, str] = HEADINGS, notes: Sequence[str] = ()) -> Table:
    """Returns a row for each case."""
    return measurement.to_table(result, {**headings, "peak_share": "of peak"}, settings=["batch_size"], notes=notes)
