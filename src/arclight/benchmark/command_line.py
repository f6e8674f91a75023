"""The verbs below `python -m arclight benchmark`. Nothing heavy is imported before one of them is chosen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from arclight.benchmark.measurement import Result

Tell = Callable[[str], None]  # takes a line about what happens now

FILE_WIDTH = 140  # characters of a table that goes to a file or another program


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
        "--against", action="append", default=[], metavar="NAME", help="raw, dataloader | raw, hf_trainer, padded"
    )
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


def add_common(verb: argparse.ArgumentParser) -> None:
    """What all benchmarks take."""
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings as of `python train.py`")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb.add_argument("--batch-size", type=int, help="samples per step, over all devices; 64 images or 16 sentences")
    verb.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    verb.add_argument("--output", type=Path, help="result file; one in benchmarks/results/ otherwise")


def scaling(options: argparse.Namespace) -> None:
    """Prints the tables and where the result lies."""
    from arclight.benchmark.scaling import Wish, measure_scaling
    from arclight.benchmark.scaling_table import to_communication_table, to_short_table, to_table

    wish = Wish(
        task=options.task,
        overrides=tuple(options.overrides),
        devices=read_devices(options.devices),
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


def show(
    options: argparse.Namespace, measure: Callable[[Tell], Result], to_tables: Callable[[Result], Iterable[Table]]
) -> None:
    """Measures, prints the tables of it, and writes the result where it is wanted."""
    from rich.console import Console

    from arclight.benchmark.measurement import check_output, write_result

    check_output(options.output)
    console = Console(log_path=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    result = measure(console.log)
    for table in to_tables(result):
        console.print(table)
    console.print(f"result: {write_result(result, options.output)}", highlight=False, soft_wrap=True, markup=False)


def read_devices(text: str | None) -> tuple[int, ...] | None:
    """The numbers of "1,2,4", each once, rising.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    try:
        return tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise InputError(f"--devices {text} must be whole numbers with commas between them, such as 1,2,4") from None
