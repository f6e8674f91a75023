"""`benchmark train`: how fast `python train.py` trains, beside the barest loop of the same kernels and the loops others run.

Every case is a process of its own, several times over, interleaved. The baselines of other ways to train are programs in the
folder benchmarks/ of the checkout; they take the same overrides, so that data, net and batch are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, ratio, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.precision import limits
from arclight.benchmark.scaling import TASKS
from arclight.benchmark.train_process import LONGEST_S, TOLD_CHARACTERS, environment_for, train
from arclight.benchmark.training_step import Sample, compose, key_of, make_sample, with_defaults
from arclight.callbacks.throughput import NUM_FIRST
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, measure_peaks

OURS, OURS_FP32 = "arclight", "arclight in fp32"
RAW = "raw"
BASELINES = {
    RAW: ("-m", "arclight.benchmark.raw_loop"),
    "dataloader": ("dataloader_loop.py",),
    "hf_trainer": ("hf_trainer.py",),
    "padded": ("hf_trainer.py", "--pad-to", "128"),
    "hf_trainer_bf16": ("hf_trainer.py", "--bf16"),
    "tagger_loop": ("tagger_loop.py",),
    "tagger_loop_bf16": ("tagger_loop.py", "--bf16"),
}
KINDS = {
    "images": (RAW, "dataloader"),
    "text": (RAW, "hf_trainer", "padded", "hf_trainer_bf16", "tagger_loop", "tagger_loop_bf16"),
}
UNASKED = {"images": (RAW, "dataloader"), "text": (RAW, "hf_trainer", "padded")}  # measured where no --against is given
FIGURES = {
    "samples": "samples/s",
    "tokens": "real tokens/s",
    "step": "ms a step",
    "factor": "arclight over it",
    "factor_fp32": "in fp32 over it",
    "peak_share": "share of peak",
    "mfu": "MFU",
}
# names in results.json, and the units
READ = {
    "samples": ("train/samples_per_s", "1/s"),
    "tokens": ("train/tokens_per_s", "1/s"),
    "step": ("train/step_ms", "ms"),
    "mfu": ("train/mfu", ""),
    "batches": ("load/batches_per_s", "1/s"),
    "bytes": ("load/bytes_per_s", "B/s"),
}


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Raises:
        InputError: for a number out of its range, or a baseline that is not of this kind of data.
    """

    task: str = "images"
    against: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    num_steps: int = 100
    num_rounds: int = 5
    with_fp32: bool = False

    def __post_init__(self) -> None:
        check_counts({"--repeats": self.num_rounds, "--steps": self.num_steps})
        for name in self.against:
            if name not in KINDS[self.task]:
                raise InputError(f"--against {name}: baselines of --task {self.task} are {', '.join(KINDS[self.task])}")


def measure_training(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine.

    Raises:
        InputError: for a wish that this machine or the config cannot fulfil.
        RuntimeError: when a program that is measured fails, with what it said.
    """
    hardware_info, device = hardware.probe(), choose_device(wish.device)
    overrides = with_defaults(
        wish.overrides, {**TASKS[wish.task], "data.num_train": "4096"} if is_made(wish) else TASKS[wish.task]
    )
    settings = compose(overrides)
    sample = make_sample(overrides)
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)
    num_threads = hardware_info.num_cores

    def once(name: str) -> Callable[[], dict[str, float]]:
        def measured() -> dict[str, float]:
            tell(name)
            if name in (OURS, OURS_FP32):
                own = in_fp32(overrides) if name == OURS_FP32 else overrides
                return numbers_of(train(steady(own, wish.num_steps), num_threads=num_threads).results)
            return run_baseline(name, wish.num_steps, overrides, num_threads=num_threads)

        return measured

    ours = (OURS, OURS_FP32) if wish.with_fp32 else (OURS,)
    names = (*ours, *(wish.against or UNASKED[wish.task]))
    measured = interleave({name: once(name) for name in names}, wish.num_rounds)
    plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
    used = {name: precision_of(name, plan, device_type=device.type, task=wish.task) for name in names}
    cases = to_cases(measured, sample, machine, precisions=used)
    described = {"task": wish.task, "overrides": overrides, "num_steps": wish.num_steps, "flops_per_step": sample.flops}
    return Result(f"train-{settings['name']}", gather_facts(machine, plan, described, num_rounds=wish.num_rounds), tuple(cases))


def precision_of(name: str, plan: Mapping[str, hardware.Decision], *, device_type: str, task: str) -> str:
    """What the products of this way to train are made in, a key of PRECISIONS, as far as it has a peak to be measured by."""
    if name in (OURS, RAW):
        chosen = str(plan["precision"].value)
        fp32 = "fp32" if plan["matmul_precision"].value == "highest" else "tf32"
        return "bf16" if chosen.startswith("bf16") else "fp16" if chosen.startswith("16") else fp32
    if name.endswith("_bf16"):
        return "bf16"
    # torch's own default lets convolutions on GPUs take TF32
    return "tf32" if name != OURS_FP32 and task == "images" and device_type == "cuda" else "fp32"


def in_fp32(overrides: Sequence[str]) -> list[str]:
    """The overrides, whatever they say of the precision, with fp32 instead."""
    return [*(override for override in overrides if key_of(override) != "precision"), "precision=fp32"]


def is_made(wish: Wish) -> bool:
    """Whether the data is made on the spot."""
    return not any(override.startswith("data=") for override in wish.overrides)


def steady(overrides: Sequence[str], num_steps: int) -> list[str]:
    """Overrides for a run of so many steps in the steady state, validated and tested as little as can be."""
    limits = ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.max_epochs=-1"]
    return [*overrides, *limits, f"trainer.max_steps={NUM_FIRST + num_steps}", "callbacks=none"]


def run_baseline(
    name: str, num_steps: int, overrides: Sequence[str], *, num_threads: int, options: Sequence[str] = ()
) -> dict[str, float]:
    """What a baseline's program measured, with these options besides its own.

    Raises:
        RuntimeError: when it failed, with the end of what it said.
    """
    first, *rest = BASELINES[name]
    program = (
        [first, *rest, str(num_steps)]
        if first == "-m"
        else [str(CONF.parent / "benchmarks" / first), *rest, "--steps", str(num_steps), *options]
    )
    with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
        ended = subprocess.run(
            [sys.executable, *program, *overrides],
            cwd=folder,
            env=environment_for(num_threads),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(program)} ended with status {ended.returncode}:\n{ended.stderr[-TOLD_CHARACTERS:]}")
    return numbers_of(json.loads(ended.stdout.strip().splitlines()[-1]))


def numbers_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Those of the speed."""
    return {name: float(results[key]) for name, (key, _) in READ.items() if key in results}


def to_cases(
    measured: Mapping[str, list[dict[str, float]]], sample: Sample, machine: MeasuredPeaks, *, precisions: Mapping[str, str]
) -> list[Case]:
    """Each way to train with its speed, ours over it, and what share of the machine's arithmetic it uses.

    Args:
        measured: by name, the numbers of each round.
        sample: a batch, and the useful arithmetic in it.
        machine: what it can do at most.
        precisions: by name, in what each multiplies: its share is that of the peak of this precision.
    """
    figures = {
        name: {
            key: Figure(tuple(numbers[key] for numbers in rounds), unit) for key, (_, unit) in READ.items() if key in rounds[0]
        }
        for name, rounds in measured.items()
    }
    per = "tokens" if sample.work.tokens else "samples"
    flops = sample.flops / (sample.work.tokens or sample.work.samples)  # of one real token or sample
    cases = []
    for name, own in figures.items():
        if peak := machine.flops.get(precisions[name]):
            own["peak_share"] = Figure(tuple(value * flops / peak for value in own[per].values), "")
        for key, over in (("factor", OURS), ("factor_fp32", OURS_FP32)):
            if name not in (over, OURS) and over in figures:
                own[key] = ratio(figures[over][per], own[per])
        cases.append(Case(name, {"precision": precisions[name]}, own))
    return cases


def to_table(result: Result) -> Table:
    """A row for each way to train."""
    table = Table(
        title=f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}",
        title_justify="left",
    )
    shown = {key: heading for key, heading in FIGURES.items() if any(key in case.figures for case in result.cases)}
    for heading in ("", "precision", *shown.values()):
        table.add_column(heading, justify="left" if heading in ("", "precision") else "right")
    for case in result.cases:
        cells = [cell(case.figures.get(key), key) for key in shown]
        table.add_row(case.name, str(case.settings["precision"]), *cells)
    table.caption = Text(limits(result.facts["machine"]))
    return table


def cell(figure: Figure | None, key: str) -> str:
    """A figure as the table shows it."""
    if figure is None:
        return ""
    if key in ("peak_share", "mfu"):
        return f"{figure.median:.0%}"
    return figure.to_text() if key in ("samples", "tokens", "factor", "factor_fp32") else significant(figure.median, 3)
