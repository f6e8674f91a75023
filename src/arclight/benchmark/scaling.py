"""`benchmark scaling`: what more devices make of a training run, and what the processes cost each other.

Every case is a real `python train.py`, several times over, interleaved. Strong scaling splits the same batch over the devices;
weak scaling gives each device as much as one had. On the CPU a device is a process with its share of the cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from arclight import hardware
from arclight.benchmark.backend import SWITCHES
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, ratio
from arclight.benchmark.options import Tell
from arclight.benchmark.train_process import Trained, train
from arclight.benchmark.training_step import MADE_IMAGES, MADE_TEXT, Sample, compose, key_of, make_sample, with_defaults
from arclight.callbacks.throughput import NUM_FIRST
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, measure_peaks
from arclight.hardware.peaks import peak_flops

TASKS = {"images": {**MADE_IMAGES, "model": "cnn"}, "text": {**MADE_TEXT, "model": "bert_tagger"}}
COMMUNICATION = "arclight.benchmark.communication.CommunicationTime"
# one device with nothing that the plan would choose
UNTUNED = ("precision=fp32", *(f"++hardware.{switch}=false" for switch in SWITCHES))
MOST_PROCESSES_PER_CORE = 8


@dataclass(frozen=True)
class Job:
    """One case: how many processes, threads of each, the global batch, and what else the command says.

    `kind` is "one" (a device), "strong", "weak", "untuned", or "ddp", which is ddp with one process.
    """

    name: str
    kind: str
    num_devices: int
    num_threads: int
    batch_size: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What the user asked for; see command_line for what each is.

    Raises:
        InputError: for a number out of its range, or an override that has an option of its own.
    """

    task: str = "images"
    overrides: tuple[str, ...] = ()
    devices: tuple[int, ...] | None = None
    device: str = "auto"
    batch_size: int | None = None
    num_steps: int = 60
    num_rounds: int = 5
    with_untuned: bool = False
    only_overhead: bool = False

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--repeats", self.num_rounds, 1),
            ("--steps", self.num_steps, 1),
            ("--batch-size", self.batch_size or 1, 1),
        ):
            if value < least:
                raise InputError(f"{option} {value} must be {least} or more")
        own = {"data.batch_size": "--batch-size", "trainer.devices": "--devices", "strategy": "--devices"}
        for override in self.overrides:
            key = override.lstrip("+").partition("=")[0]
            if key in own:
                raise InputError(f"{override}: the benchmark sets {key} for each case; use {own[key]}")


def measure_scaling(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine.

    Raises:
        InputError: for a wish that this machine or the config cannot fulfil.
    """
    hardware_info, device = hardware.probe(), choose_device(wish.device)
    batch_size = wish.batch_size or int(TASKS[wish.task]["data.batch_size"])
    jobs = plan_jobs(wish, is_cpu=device.type == "cpu", hardware_info=hardware_info, batch_size=batch_size)
    common = common_overrides(wish, max(job.batch_size for job in jobs))
    one = next(job for job in jobs if job.kind == "one")
    settings = compose([*untouched(common, one), *one.overrides])  # tells mistakes before anything is started
    sample = make_sample([*common, f"data.batch_size={batch_size}"]) if is_made(common) else None
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)

    def run(job: Job) -> Callable[[], Trained]:
        def once() -> Trained:
            tell(job.name)
            return train([*untouched(common, job), *job.overrides], num_threads=job.num_threads)

        return once

    measured = interleave({job.name: run(job) for job in jobs}, wish.num_rounds)
    precision = str(hardware.plan(hardware_info, hardware.requested_settings(settings))["precision"].value)
    cases = to_cases(jobs, measured, flops=flops_of(sample), machine=machine, precision=precision)
    described = {"task": wish.task, "overrides": common, "num_steps": wish.num_steps}
    plan = hardware.plan(hardware_info, hardware.requested_settings(compose(common)))
    name = "overhead" if wish.only_overhead else "scaling"
    return Result(f"{name}-{settings['name']}", gather_facts(machine, plan, described, num_rounds=wish.num_rounds), cases)


def plan_jobs(wish: Wish, *, is_cpu: bool, hardware_info: hardware.HardwareInfo, batch_size: int) -> list[Job]:
    """The cases: one device (on the CPU with all cores, and with as many as each of several processes has), then several.

    Raises:
        InputError: when there are not that many devices, or the batch does not divide over them.
    """
    counts = device_counts(wish, is_cpu=is_cpu, hardware_info=hardware_info)
    cores = hardware_info.num_cores
    place, one, several = (
        ("cpu", "strategy=single", "strategy=ddp_cpu") if is_cpu else ("gpu", "strategy=single", "strategy=ddp")
    )

    def job(name: str, kind: str, num_devices: int, num_threads: int, size: int, strategy: str = one) -> Job:
        devices = () if strategy == one else (f"trainer.devices={num_devices}",)
        return Job(
            name, kind, num_devices, num_threads, size, (f"trainer={place}", strategy, *devices, f"data.batch_size={size}")
        )

    def single(threads: int) -> Job:
        name = f"1 process, {threads} {'thread' if threads == 1 else 'threads'}" if is_cpu else "1 GPU"
        return job(name, "one", 1, threads, batch_size)

    if wish.only_overhead:
        return [single(cores), job("ddp, 1 process", "ddp", 1, cores, batch_size, several)]
    jobs = [single(cores)]
    if wish.with_untuned:
        untuned = single(cores)
        jobs.insert(0, replace(untuned, name="untuned", kind="untuned", overrides=untuned.overrides + UNTUNED))
    for count in counts:
        threads = max(1, cores // count)
        if count == 1:
            continue
        if is_cpu and threads != cores and single(threads) not in jobs:
            jobs.append(single(threads))
        if batch_size % count:
            hardware.accumulation_steps(batch_size, count, None)  # tells which sizes do
        unit = "processes" if is_cpu else "GPUs"
        watched = f"+callbacks.communication._target_={COMMUNICATION}"
        for kind, size in (("strong", batch_size), ("weak", batch_size * count)):
            planned = job(f"{count} {unit}, {kind}", kind, count, threads, size, several)
            jobs.append(replace(planned, overrides=(*planned.overrides, watched)))
    return jobs


def device_counts(wish: Wish, *, is_cpu: bool, hardware_info: hardware.HardwareInfo) -> tuple[int, ...]:
    """How many devices each case has.

    Raises:
        InputError: for a number out of range, or nothing to compare.
    """
    num_gpus = len(hardware_info.gpus)
    counts = wish.devices or ((1, 2) if is_cpu else tuple(range(1, num_gpus + 1)))
    most = hardware_info.num_cores * MOST_PROCESSES_PER_CORE if is_cpu else num_gpus
    there = f"{hardware_info.num_cores} cores carry at most {most} processes" if is_cpu else f"this machine has {num_gpus} GPUs"
    for count in counts:
        if not 1 <= count <= most:
            raise InputError(f"--devices {count}: {there}; take 1 to {most}")
    if not wish.only_overhead and max(counts) == 1:
        raise InputError("--devices 1: scaling wants two devices or more; take --device cpu --devices 1,2, or --overhead")
    return counts


def common_overrides(wish: Wish, largest_batch: int) -> list[str]:
    """What all cases have in common: made data enough for an epoch, no tracker, one epoch, hardly any validation."""
    num_samples = (wish.num_steps + NUM_FIRST) * largest_batch
    defaults = {
        **{key: value for key, value in TASKS[wish.task].items() if key != "data.batch_size"},
        "data.num_train": str(num_samples),
        "data.num_val": "64",
        "data.num_test": "64",
        "logger": "none",
        "callbacks": "none",
        "trainer.max_epochs": "1",
        "trainer.limit_train_batches": str(wish.num_steps + NUM_FIRST),
        "trainer.limit_val_batches": "1",
        "trainer.limit_test_batches": "1",
    }
    return with_defaults(wish.overrides, defaults)


def untouched(common: Sequence[str], job: Job) -> list[str]:
    """The common overrides, less those that the job's own replace."""
    groups = {key_of(override) for override in job.overrides}
    return [override for override in common if key_of(override) not in groups]


def is_made(overrides: Sequence[str]) -> bool:
    """Whether the data is made on the spot, so that building it once more costs nothing."""
    return bool({"data=synthetic_images", "data=synthetic_text"} & set(overrides))


def flops_of(sample: Sample | None) -> tuple[str, float]:
    """The key of results.json that counts the work, and the FLOPs of one of what it counts; 0 where they are not known."""
    if sample is None:
        return "train/samples_per_s", 0.0
    if sample.work.tokens:
        return "train/tokens_per_s", sample.flops / sample.work.tokens
    return "train/samples_per_s", sample.flops / sample.work.samples


def to_cases(
    jobs: Sequence[Job],
    measured: Mapping[str, Sequence[Trained]],
    *,
    flops: tuple[str, float],
    machine: MeasuredPeaks,
    precision: str,
) -> tuple[Case, ...]:
    """What follows from the runs, round by round.

    `speedup` is in samples per second over one device (on the CPU: one process with all cores). `efficiency` is what of n
    devices' work arrives, 1 when nothing is lost, over one device with as many threads: of strong scaling T(1) / (n T(n)), of
    weak T(1) / T(n), T the time of a step. `exposed_share` is the part of a step in which only gradients move.
    """
    step = {job.name: Figure(tuple(run.results["train/step_ms"] for run in measured[job.name]), "ms") for job in jobs}
    speed = {job.name: Figure(tuple(run.results["train/samples_per_s"] for run in measured[job.name]), "1/s") for job in jobs}
    ones = {job.num_threads: job for job in jobs if job.kind == "one"}
    whole = next(job for job in jobs if job.kind == "one")
    cases = []
    for job in jobs:
        figures = {"step": step[job.name], "samples": speed[job.name], "speedup": ratio(speed[job.name], speed[whole.name])}
        key, flops_each = flops
        if flops_each:
            done = tuple(flops_each * run.results[key] for run in measured[job.name])
            run_precision = "32-true" if job.kind == "untuned" else precision
            peak = peak_flops(torch.device(machine.device), run_precision, machine.flops) or machine.flops["fp32"]
            there = peak * (1 if machine.device == "cpu" else job.num_devices)
            figures["flops"] = Figure(tuple(value / 1e9 for value in done), "GFLOP/s")
            figures["peak_share"] = Figure(tuple(value / there for value in done), "")
        if job.kind in ("strong", "weak"):
            one = step[ones[job.num_threads].name] if job.num_threads in ones else step[whole.name]
            share = 1 / job.num_devices if job.kind == "strong" else 1.0
            figures["efficiency"] = ratio(one, step[job.name], factor=share)
        if job.kind == "ddp":
            figures["overhead"] = ratio(step[job.name], step[whole.name])
        figures |= communication_figures([run.communication for run in measured[job.name]])
        if "exposed" in figures:
            figures["exposed_share"] = ratio(figures["exposed"], step[job.name])
        cases.append(Case(job.name, {**asdict(job), "overrides": list(job.overrides)}, figures))
    return tuple(cases)


def communication_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Milliseconds per step that gradients are on their way, that nothing hides, and that they take at least.

    The least is bytes * 2 (n - 1) / n over the bandwidth of an all-reduce of as many bytes between the same processes, at its
    fastest: what a ring has to move.
    """
    if not runs or not all(runs):
        return {}

    def middle(values: Sequence[float]) -> float:
        return Figure(tuple(values), "").median

    moved = [run["gradient_bytes"] * 2 * (run["world_size"] - 1) / run["world_size"] for run in runs]
    bandwidth = [1000 * size / min(run["all_reduce_ms"]) for size, run in zip(moved, runs, strict=True)]
    return {
        "in_flight": Figure(tuple(middle(run["in_flight_ms"]) for run in runs), "ms"),
        "exposed": Figure(tuple(middle(run["with_ms"]) - middle(run["without_ms"]) for run in runs), "ms"),
        "floor": Figure(tuple(1000 * size / speed for size, speed in zip(moved, bandwidth, strict=True)), "ms"),
        "all_reduce": Figure(tuple(speed / 1e9 for speed in bandwidth), "GB/s"),
    }
