"""`benchmark precision`: what each switch of torch and its libraries makes of the speed of a training step on this machine.

All run in one process on the same net and the same batch, interleaved in rounds. First each change to the plain setting alone,
then every combination of the switches with the two precisions that were fastest alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from arclight import hardware
from arclight.benchmark.backend import SWITCHES, Backend
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, ratio, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.training_step import Sample, TrainingStep, made_data, make_sample, with_defaults
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, measure_peaks, seconds_of, unavailable_precisions
from arclight.images.info import ImageInfo

PLAIN = Backend()
NUM_FIRST = 3  # steps before anything is measured: compilers, allocators and cuDNN's search
ROUND_S = 0.5  # of steps of one case in one round
NUM_FAST_PRECISIONS = 2
CUDNN_ONLY = "cuDNN is a library for NVIDIA GPUs"
NO_IMAGES = "no images in this data"


def measure_precision(
    model: str,
    overrides: Sequence[str],
    *,
    device_wish: str = "auto",
    batch_size: int | None = None,
    num_rounds: int = 5,
    round_s: float = ROUND_S,
    skip: Sequence[str] = (),
    tell: Tell = lambda line: None,
) -> Result:
    """The table of this machine.

    Args:
        model: an option of conf/model; it gets data made on the spot.
        overrides: further ones of `python train.py`.
        device_wish: auto, cpu or cuda.
        batch_size: samples per step; None is the usual number for the kind of data.
        num_rounds: how often each setting is measured.
        round_s: seconds of steps each time.
        skip: switches that are left out, such as compile.
        tell: takes a line about what happens now.

    Raises:
        InputError: for an unknown model or override, a device that is not here, or less than one round.
    """
    check_counts({"--repeats": num_rounds})
    device, hardware_info = choose_device(device_wish), hardware.probe()
    # a learning rate of 0, so that every step does the same work: a net that has learned its batch works with denormal numbers
    defaults = {**made_data(model), "optimizer.lr": "0"} | ({} if batch_size is None else {"data.batch_size": str(batch_size)})
    sample = make_sample(with_defaults(overrides, defaults))
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)
    missing = not_here(
        unavailable_precisions(device, hardware_info), device, has_images=isinstance(sample.data_info, ImageInfo), skip=skip
    )
    cases = measure_backends(sample, machine, device, missing, num_rounds=num_rounds, round_s=round_s, tell=tell)
    settings = {
        "model": model,
        "overrides": list(sample.overrides),
        "parameters": sum(parameter.numel() for parameter in TrainingStep(sample, PLAIN, device).task.parameters()),
        "flops_per_step": sample.flops,
        **sample.work._asdict(),
    }
    plan = hardware.plan(hardware_info, hardware.requested_settings(sample.settings))
    return Result(f"precision-{model}", gather_facts(machine, plan, settings, num_rounds=num_rounds), tuple(cases))


def not_here(
    precision_reasons: Mapping[str, str | None], device: torch.device, *, has_images: bool, skip: Sequence[str]
) -> dict[str, str]:
    """What cannot be changed here, by the name of the case that changes it alone, with the reason."""
    missing = {name: f"not on this device: {reason}" for name, reason in precision_reasons.items() if reason is not None}
    if device.type != "cuda":
        missing |= dict.fromkeys(("cudnn off", "cudnn benchmark"), f"not on this device: {CUDNN_ONLY}")
    elif not has_images:
        missing |= dict.fromkeys(("cudnn off", "cudnn benchmark"), f"makes no difference: {NO_IMAGES}")
    if not has_images:
        missing["channels last"] = f"makes no difference: {NO_IMAGES}"
    return missing | {switch.replace("_", " "): "left out by choice" for switch in skip}


def single_changes() -> list[Backend]:
    """The plain setting, and each change to it alone."""
    return [
        PLAIN,
        *(replace(PLAIN, precision=precision) for precision in ("tf32", "bf16", "fp16")),
        replace(PLAIN, cudnn=False),
        *(with_switches("fp32", [switch]) for switch in SWITCHES),
    ]


def combinations(fast_precisions: Sequence[str], switches: Sequence[str]) -> list[Backend]:
    """Every combination of the switches with each of the precisions, the single changes left out."""
    sets = itertools.chain.from_iterable(itertools.combinations(switches, size) for size in range(len(switches) + 1))
    made = [with_switches(precision, chosen) for precision, chosen in itertools.product(fast_precisions, list(sets))]
    return [backend for backend in made if backend not in single_changes()]


def with_switches(precision: str, switches: Sequence[str]) -> Backend:
    """The backend of this precision with these switches on and all others as in the plain setting."""
    return Backend(
        precision=precision,
        cudnn_benchmark="cudnn_benchmark" in switches,
        channels_last="channels_last" in switches,
        compile="compile" in switches,
    )


def measure_backends(
    sample: Sample,
    machine: MeasuredPeaks,
    device: torch.device,
    missing: Mapping[str, str],
    *,
    num_rounds: int,
    round_s: float,
    tell: Tell,
) -> list[Case]:
    """The cases of both halves; those of the second are compared with the plain setting as measured among them."""
    singles = [backend for backend in single_changes() if backend.name not in missing]
    tell(f"{len(singles)} settings, {num_rounds} rounds")
    alone = compare(sample, machine, device, singles, num_rounds=num_rounds, round_s=round_s, tell=tell)
    told = [
        Case(backend.name, asdict(backend), missing=missing[backend.name])
        for backend in single_changes()
        if backend.name in missing
    ]
    measured = {case.name: case.figures["step"].median for case in alone if case.missing is None}
    fast = sorted((name for name in machine.flops if case_name(name) in measured), key=lambda name: measured[case_name(name)])
    switches = [switch for switch in SWITCHES if switch.replace("_", " ") in measured]
    combined = combinations(fast[:NUM_FAST_PRECISIONS], switches)
    if not combined:
        return [*alone, *told]
    tell(f"{len(combined)} combinations, {num_rounds} rounds")
    together = compare(sample, machine, device, [PLAIN, *combined], num_rounds=num_rounds, round_s=round_s, tell=tell)
    return [*alone, *told, *together[1:]]


def case_name(precision: str) -> str:
    """The name of the case that changes only the precision."""
    return replace(PLAIN, precision=precision).name


def compare(
    sample: Sample,
    machine: MeasuredPeaks,
    device: torch.device,
    backends: Sequence[Backend],
    *,
    num_rounds: int,
    round_s: float,
    tell: Tell,
) -> list[Case]:
    """One case for each backend, the first of which is what the others' factor is over; one that fails says why."""
    steps: dict[str, TrainingStep] = {}
    first_s: dict[str, float] = {}
    failed: dict[str, str] = {}
    for backend in backends:
        tell(f"first steps: {backend.name}")
        try:
            steps[backend.name] = step = TrainingStep(sample, backend, device)
            first_s[backend.name] = seconds_of(step, 1, device)
            seconds_of(step, NUM_FIRST - 1, device)
        except Exception as error:  # whatever a compiler or a kernel raises: the other settings can still be measured
            if backend == backends[0]:
                raise
            steps.pop(backend.name, None)
            failed[backend.name] = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    tell("rounds")
    measured = interleave({name: timer(step, device, round_s) for name, step in steps.items()}, num_rounds)
    return [
        Case(backend.name, asdict(backend), missing=failed[backend.name])
        if backend.name in failed
        else to_case(backend, sample, machine, measured[backend.name], measured[backends[0].name], first_s[backend.name])
        for backend in backends
    ]


def timer(step: TrainingStep, device: torch.device, round_s: float) -> Callable[[], float]:
    """A call that takes steps for so many seconds and gives the milliseconds of one."""
    num_steps = max(1, round(round_s / seconds_of(step, 1, device)))

    def measure() -> float:
        seconds_of(step, 1, device)  # brings the caches back that another case has emptied
        return 1000 * seconds_of(step, num_steps, device) / num_steps

    return measure


def to_case(
    backend: Backend, sample: Sample, machine: MeasuredPeaks, ms: Sequence[float], plain_ms: Sequence[float], first_s: float
) -> Case:
    """What follows from the times of the steps."""
    step = Figure(tuple(ms), "ms")
    seconds = [value / 1000 for value in ms]
    figures = {
        "step": step,
        "factor": ratio(Figure(tuple(plain_ms), "ms"), step),
        "samples": Figure(tuple(sample.work.samples / value for value in seconds), "1/s"),
        "flops": Figure(tuple(sample.flops / value / 1e9 for value in seconds), "GFLOP/s"),
        "peak_share": Figure(tuple(sample.flops / value / machine.flops[backend.precision] for value in seconds), ""),
        "first_step": Figure((first_s,), "s"),
    }
    if sample.work.tokens:
        figures["tokens"] = Figure(tuple(sample.work.tokens / value for value in seconds), "1/s")
    return Case(backend.name, asdict(backend), figures)


def best_case(cases: Sequence[Case]) -> Case:
    """The case with the greatest median factor over the plain setting."""
    return max((case for case in cases if case.missing is None), key=lambda case: case.figures["factor"].median)


def to_table(result: Result) -> Table:
    """For a terminal: a row for each setting, the fastest last."""
    settings, machine = result.facts["settings"], result.facts["machine"]
    title = f"{settings['model']}, {settings['samples']} samples a step, on {result.facts['device']}"
    title += f", n = {result.facts['num_rounds']}"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("setting")
    for heading in ("factor over plain", "ms a step", "samples/s", "GFLOP/s", "share of peak", "first step, s"):
        table.add_column(heading, justify="right")
    for case in result.cases:
        if case.missing is None:
            table.add_row(*to_row(case))
    table.add_section()
    best = best_case(result.cases)
    table.add_row(*to_row(replace(best, name=f"best: {best.name}")))
    lines = [limits(machine), *(f"{case.name}: {case.missing}" for case in result.cases if case.missing is not None)]
    table.caption = Text("\n".join(lines))
    return table


def to_row(case: Case) -> list[Text]:
    """The cells of one setting that was measured."""
    medians = [significant(case.figures[name].median, 3) for name in ("step", "samples", "flops")]
    share = f"{case.figures['peak_share'].median:.0%}"
    cells = (case.name, case.figures["factor"].to_text(), *medians, share, case.figures["first_step"].to_text())
    return [Text(cell) for cell in cells]


def limits(machine: Mapping[str, Any]) -> str:
    """What the machine can do at most, in a sentence."""
    flops = ", ".join(f"{name} {significant(value / 1e9, 3)}" for name, value in machine["flops"].items())
    return f"products at most, GFLOP/s: {flops}; copy {significant(machine['copy_bytes_per_s'] / 1e9, 3)} GB/s"
