"""Terminal output: colours, boxes and bars on a terminal, plain lines in logs and pipes and wherever colour is off."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_WIDTH = 1000  # columns where no terminal sets them: lines of a log are never folded
# C0 and C1 controls without tab and newline, marks that reverse the direction of text, and lone surrogates
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LIGHTNING = ("lightning", "lightning.pytorch", "lightning.fabric")


def open_console(*, quiet: bool = False, file: IO[str] | None = None) -> Console:
    """Returns a console on stdout (or `file`); a quiet one, as in every process but the first, writes nothing.

    `is_terminal` is False where stdout is a file or a pipe, where NO_COLOR is set, or where TERM is dumb.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        """Prints every text as `printable` returns it; colours and cursor movements of rich itself are not text."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text), style, control)

    stream = file or sys.stdout
    is_tty = stream.isatty()
    if not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a class name that the terminal cannot show must not stop the run
    return PrintableConsole(
        file=file,
        quiet=quiet,
        force_terminal=False if is_plain(os.environ) or not is_tty else None,
        force_jupyter=False,
        width=None if is_tty or os.environ.get("COLUMNS", "").isdigit() else LOG_WIDTH,
    )


def printable(text: str) -> str:
    """Returns text with U+FFFD in place of each character that could command a terminal or that UTF-8 cannot encode.

    Names of classes, files and metrics may come from strangers.
    """
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def is_plain(environment: Mapping[str, str]) -> bool:
    """Returns whether the environment turns colour off. Source: https://no-color.org"""
    return bool(environment.get("NO_COLOR")) or environment.get("TERM", "").lower() in ("dumb", "unknown")


def print_tables(console: Console, tables: Sequence[Any]) -> None:
    """Prints tables and texts: with boxes on a terminal, elsewhere separated by empty lines."""
    from rich.table import Table

    for position, table in enumerate(tables):
        if console.is_terminal:
            console.print(table)
            continue
        if position:
            print_lines(console, [""])
        if isinstance(table, Table):
            table.box = None
            table.padding = (0, 2, 0, 0)
        with console.capture() as captured:
            console.print(table)
        print_lines(console, [line.rstrip() for line in captured.get().splitlines()])


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Prints lines as they are: never folded, so that a command can be copied, and without markup."""
    for line in lines:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Prints names and texts in two columns."""
    if console.is_terminal:
        console.print(columns(pairs, ("bold", "")))
    else:
        width = max((len(name) for name, _ in pairs), default=0)
        print_lines(console, [f"{name:{width}}  {text}" for name, text in pairs])


def columns(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> Table:
    """Returns a table without lines; the first column is never folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for position, style in enumerate(styles):
        table.add_column(style=style, no_wrap=position == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def score_table(title: str, headings: Sequence[str], sections: Sequence[Sequence[tuple[str, Sequence[str]]]]) -> Table:
    """Returns a table of named rows, their cells to the right; a line separates the sections."""
    from rich.table import Table
    from rich.text import Text

    # Text, because rich reads a name such as "[red]" in a plain string as markup
    table = Table(title=Text(title) if title else None, title_justify="left")
    table.add_column("", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for rows in sections:
        for name, cells in rows:
            table.add_row(Text(name), *map(Text, cells))
        table.add_section()
    return table


def format_metric(value: float) -> str:
    """Returns a number with three significant figures; one below 1 with as many as it takes not to become 1."""
    if not value or not math.isfinite(value):
        return f"{value + 0.0:g}"  # not -0
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.2e}"
    decimals = decimals_of(value)
    text = f"{round(value, decimals):,.{max(0, decimals)}f}"
    return text if abs(value) >= 1 or abs(float(text)) < 1 else f"{value:.6g}"


def decimals_of(value: float, figures: int = 3) -> int:
    """Returns the decimals that show so many significant figures of a number; negative for large ones, as `round` takes it."""
    return figures - 1 - math.floor(math.log10(abs(value)))


def relative_path(path: Path) -> str:
    """Returns the path relative to the working directory where it lies below it."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to the current sys.stderr, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def silence_lightning(harmless: Sequence[str] = ()) -> Iterator[None]:
    """Context manager that limits Lightning's log to warnings and ignores those that match the `harmless` patterns."""
    loggers = [logging.getLogger(name) for name in LIGHTNING]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in harmless:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
