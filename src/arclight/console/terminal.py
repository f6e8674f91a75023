"""What a terminal gets: colours, boxes and bars where someone looks, plain lines in logs, pipes and wherever colour is off."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_WIDTH = 1000  # columns where no terminal sets them: a line of a log is never folded
LIGHTNING = ("lightning", "lightning.pytorch", "lightning.fabric")


def open_console(*, quiet: bool = False, file: IO[str] | None = None) -> Console:
    """A console on stdout. `is_terminal` says whether it may show more than plain lines.

    It may not where stdout is a file or a pipe, where NO_COLOR is set to anything, or where TERM is dumb.

    Args:
        quiet: writes nothing at all, as in every process of a run but its first.
        file: to write to instead.
    """
    from rich.console import Console

    stream = file or sys.stdout
    is_tty = stream.isatty()
    if not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a class name that a terminal cannot show never costs a run
    return Console(
        file=file,
        quiet=quiet,
        force_terminal=False if is_plain(os.environ) or not is_tty else None,
        force_jupyter=False,
        width=None if is_tty or os.environ.get("COLUMNS", "").isdigit() else LOG_WIDTH,
    )


def is_plain(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for plain lines. Source: https://no-color.org, and what TERM has meant since 1978."""
    return bool(environment.get("NO_COLOR")) or environment.get("TERM", "").lower() in ("dumb", "unknown")


def show(console: Console, parts: Sequence[Any]) -> None:
    """Prints tables and texts: with boxes on a terminal, elsewhere with empty lines between them."""
    from rich.table import Table

    for place, part in enumerate(parts):
        if console.is_terminal:
            console.print(part)
            continue
        if place:
            say(console, [""])
        if isinstance(part, Table):
            part.box = None
            part.padding = (0, 2, 0, 0)
        with console.capture() as captured:
            console.print(part)
        say(console, [line.rstrip() for line in captured.get().splitlines()])


def say(console: Console, lines: Sequence[str]) -> None:
    """Prints lines as they are: whole, so that what is copied from them works, and with nothing taken for markup."""
    for line in lines:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """Names and what is known of them, one below the other, folded beside their names on a terminal."""
    if console.is_terminal:
        console.print(grid(facts, ("bold", "")))
    else:
        width = max((len(name) for name, _ in facts), default=0)
        say(console, [f"{name:{width}}  {fact}" for name, fact in facts])


def grid(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> Table:
    """Columns without lines; the first keeps its words whole, the others fold."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    for place, style in enumerate(styles):
        made.add_column(style=style, no_wrap=place == 0, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def near(path: Path) -> str:
    """The path as it is typed from here, where that is shorter."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to what sys.stderr is at that moment: while a bar is shown, the bar stands in for it and moves out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def silence_lightning(harmless: Sequence[str] = ()) -> Iterator[None]:
    """Inside, Lightning tells warnings and errors only: no lists of devices, no tips.

    Args:
        harmless: patterns of warnings that say nothing to a user of ours.
    """
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
