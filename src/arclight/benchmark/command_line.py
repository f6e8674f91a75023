"""The verbs below `python -m arclight benchmark`. Nothing heavy is imported before one of them is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from arclight.benchmark.options import Tell, add_common, read_counts, show
from arclight.benchmark.part_verbs import add_part_verbs

if TYPE_CHECKING:
    from rich.table import Table

    from arclight.benchmark.measurement import Result


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` a sub-command for each benchmark."""
    verbs = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    verb = verbs.add_parser("scaling", help="1 to N devices: throughput, efficiency, time in communication")
    verb.add_argument("--task", choices=("images", "text"), default="images", help="whose net and made data are trained")
    verb.add_argument("--devices", metavar="N,N...", help="numbers of devices; every number of GPUs, or 1,2 processes")
    verb.add_argument("--steps", type=int, default=60, help="measured in each run (%(default)s)")
    verb.add_argument("--table", action="store_true", help="also one device with nothing tuned, and a short table with it")
    verb.add_argument("--overhead", action="store_true", help="instead: ddp with one process over a single one")
    add_common(verb)
    verb.set_defaults(do=scaling)

    verb = verbs.add_parser("precision", help="the training step by precision, cuDNN, memory layout and compilation")
    verb.add_argument("--model", default="cnn", help="an option of conf/model (%(default)s)")
    verb.add_argument("--without", action="append", default=[], choices=("compile",), help="leave a switch out")
    add_common(verb)
    verb.set_defaults(do=precision)

    verb = verbs.add_parser("train", help="`python train.py` beside a raw loop and the loops that others run")
    verb.add_argument("--task", choices=("images", "text"), default="images", help="whose net and made data are trained")
    verb.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME",
        help="of images: raw, dataloader; of text: raw, hf_trainer, padded, hf_trainer_bf16, tagger_loop, tagger_loop_bf16",
    )
    verb.add_argument("--fp32", action="store_true", help="also `python train.py precision=fp32`: like against like")
    verb.add_argument("--steps", type=int, default=100, help="measured in each run (%(default)s)")
    add_common(verb)
    verb.set_defaults(do=train)

    verb = verbs.add_parser("tracking", help="the training step with each tracker, and all of them, over that with none")
    verb.add_argument("--task", choices=("images", "text"), default="images", help="whose net and made data are trained")
    verb.add_argument("--steps", type=int, default=300, help="measured in each run (%(default)s)")
    add_common(verb)
    verb.set_defaults(do=tracking)

    verb = verbs.add_parser("start", help="seconds until an answer, and until the first optimizer step")
    add_common(verb)
    verb.set_defaults(do=start)

    verb = verbs.add_parser("resume", help="seconds until a run that goes on makes its first step; what a checkpoint costs")
    add_common(verb)
    verb.set_defaults(do=resume)

    add_part_verbs(verbs)


def scaling(options: argparse.Namespace) -> None:
    """Prints the tables and where the result lies."""
    from arclight.benchmark.scaling import Wish, measure_scaling
    from arclight.benchmark.scaling_table import to_communication_table, to_short_table, to_table

    wish = Wish(
        task=options.task,
        overrides=tuple(options.overrides),
        devices=read_counts("--devices", options.devices),
        device=options.device,
        batch_size=options.batch_size,
        num_steps=options.steps,
        num_rounds=options.repeats,
        with_untuned=options.table,
        only_overhead=options.overhead,
    )

    def to_tables(result: Result) -> Iterator[Table]:
        yield to_table(result)
        if any("exposed" in case.figures for case in result.cases):
            yield to_communication_table(result)
        if options.table and not options.overhead:
            yield to_short_table(result)

    show(options, lambda tell: measure_scaling(wish, tell=tell), to_tables)


def precision(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.precision import measure_precision, to_table

    def measure(tell: Tell) -> Result:
        return measure_precision(
            options.model,
            options.overrides,
            device_wish=options.device,
            batch_size=options.batch_size,
            num_rounds=options.repeats,
            skip=options.without,
            tell=tell,
        )

    show(options, measure, lambda result: [to_table(result)])


def train(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.training import Wish, measure_training, to_table

    size = () if options.batch_size is None else (f"data.batch_size={options.batch_size}",)
    wish = Wish(
        task=options.task,
        against=tuple(options.against),
        overrides=(*options.overrides, *size),
        device=options.device,
        num_steps=options.steps,
        num_rounds=options.repeats,
        with_fp32=options.fp32,
    )
    show(options, lambda tell: measure_training(wish, tell=tell), lambda result: [to_table(result)])


def tracking(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.tracking import Wish, measure_tracking, to_table

    size = () if options.batch_size is None else (f"data.batch_size={options.batch_size}",)
    wish = Wish(options.task, (*options.overrides, *size), options.device, options.steps, options.repeats)
    show(options, lambda tell: measure_tracking(wish, tell=tell), lambda result: [to_table(result)])


def start(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.start import measure_start, to_table

    show(
        options,
        lambda tell: measure_start(options.overrides, num_rounds=options.repeats, tell=tell),
        lambda result: [to_table(result)],
    )


def resume(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.resume import measure_resume, to_table

    def measure(tell: Tell) -> Result:
        return measure_resume(options.overrides, num_rounds=options.repeats, tell=tell)

    show(options, measure, lambda result: [to_table(result)])
