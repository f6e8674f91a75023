"""The verbs below `python -m arclight benchmark`, and the options and output that all benchmarks share.

Nothing heavy is imported before a verb is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

    from arclight.benchmark.measurement import Result

Log = Callable[[str], None]  # takes a line about what is measured now

FILE_WIDTH = 140  # characters of a table that is written to a file or a pipe


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What every benchmark is given; the fields of it and its subclasses are those of the parsed command line."""

    overrides: Sequence[str] = ()
    device: str = "auto"
    num_rounds: int = 5

    @classmethod
    def parsed(cls, namespace: argparse.Namespace) -> Self:
        """Returns the options of a parsed command line; what is None there keeps its default."""
        given = {field.name: getattr(namespace, field.name, None) for field in fields(cls)}
        if (batch_size := getattr(namespace, "batch_size", None)) is not None:
            given["overrides"] = [*namespace.overrides, f"data.batch_size={batch_size}"]
        return cls(**{name: value for name, value in given.items() if value is not None})


Options = TypeVar("Options", bound=BenchmarkOptions)


def count(text: str) -> int:
    """Returns a whole number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of 1 or more")
    return int(text)


def counts(text: str) -> list[int]:
    """Returns the numbers of "1,2,4", sorted and without duplicates, for argparse."""
    return sorted({count(number) for number in text.split(",")})


def new_file(text: str) -> Path:
    """Returns the path of a file whose directory exists, for argparse."""
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {Path(text).parent} does not exist. Create it first")
    return Path(text)


def add_arguments(parser: argparse.ArgumentParser, *, with_batch_size: bool = True) -> None:
    """Adds the arguments of BenchmarkOptions, and `--output`."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides as of `python train.py`")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    if with_batch_size:
        parser.add_argument("--batch-size", type=count, help="global batch size; the same as data.batch_size=N")
    parser.add_argument("--repeats", type=count, default=5, dest="num_rounds", help="rounds (%(default)s)")
    parser.add_argument("--output", type=new_file, help="result file (default: a new one in benchmarks/results/)")


def run_benchmark(
    namespace: argparse.Namespace,
    options: type[Options],
    measure: Callable[[Options, Log], Result],
    to_tables: Callable[[Result], Iterable[Table]],
) -> None:
    """Measures what the command line says, prints the tables, and writes the result file."""
    from rich.console import Console

    from arclight.benchmark.measurement import warn_if_busy, write_result

    console = Console(log_path=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    warn_if_busy(console.log)
    result = measure(options.parsed(namespace), console.log)
    for table in to_tables(result):
        console.print(table)
    console.print(f"result: {write_result(result, namespace.output)}", highlight=False, soft_wrap=True, markup=False)


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command for each benchmark, which is the module of that name."""
    verbs = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")

    verb = verbs.add_parser("train", help="samples per second of `python train.py`, and what a step waits for")
    verb.add_argument("--also", action="append", metavar="OVERRIDES", help="another case, with these overrides added")
    verb.add_argument("--steps", type=count, default=100, dest="num_steps", help="measured in each run (%(default)s)")
    add_arguments(verb)

    verb = verbs.add_parser("precision", help="the training step by precision, cuDNN, memory layout and compilation")
    verb.add_argument("--without", action="append", choices=("compile",), dest="skip", help="leave out a setting")
    add_arguments(verb)

    verb = verbs.add_parser("scaling", help="1 to N devices: throughput, speed-up, efficiency")
    verb.add_argument("--devices", type=counts, metavar="N,N...", help="default: up to all GPUs, or 1,2 processes")
    verb.add_argument("--steps", type=count, default=60, dest="num_steps", help="measured in each run (%(default)s)")
    add_arguments(verb)

    verb = verbs.add_parser("inference", help="the forward pass by batch size: samples per second, latency")
    verb.add_argument("--batch-sizes", type=counts, metavar="N,N...", dest="sizes", help="default: 1,4,16,64,256")
    verb.add_argument("--without", action="append", choices=("compile",), dest="skip", help="leave out a setting")
    add_arguments(verb, with_batch_size=False)

    parser.set_defaults(do=run)


def run(namespace: argparse.Namespace) -> None:
    """Runs the chosen benchmark."""
    module = importlib.import_module(f"arclight.benchmark.{namespace.benchmark}")
    run_benchmark(namespace, module.Options, module.measure, lambda result: [module.to_table(result)])
