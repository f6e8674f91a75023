"""What all benchmarks take on the command line, and how each shows and keeps what it found. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from arclight.benchmark.measurement import Result

Tell = Callable[[str], None]  # takes a line about what happens now

FILE_WIDTH = 140  # characters of a table that goes to a file or another program


def check_counts(counts: Mapping[str, int]) -> None:
    """Raises InputError for a number that is less than 1, by its option."""
    for option, value in counts.items():
        if value < 1:
            raise InputError(f"{option} {value} must be 1 or more")


def add_common(verb: argparse.ArgumentParser, *, with_batch_size: bool = True) -> None:
    """What all benchmarks take."""
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings as of `python train.py`")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    if with_batch_size:
        verb.add_argument("--batch-size", type=int, help="samples per step, over all devices; 64 images or 16 sentences")
    verb.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    verb.add_argument("--output", type=Path, help="result file; one in benchmarks/results/ otherwise")


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


def read_counts(option: str, text: str | None) -> tuple[int, ...] | None:
    """The numbers of "1,2,4", each once, rising; None where nothing is given.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    try:
        return tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise InputError(f"{option} {text} must be whole numbers with commas between them, such as 1,2,4") from None
