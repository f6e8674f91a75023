"""The verb `predict`: a trained model over files, directories, patterns or standard input.

Exit status: 0 when everything was predicted, 3 when items were skipped, 2 when nothing could begin.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from arclight.console.terminal import open_console, print_lines, printable
from arclight.errors import InputError
from arclight.inference.output import FORMATS, render

SKIPPED = 3  # exit status


def add_predict(verb: argparse.ArgumentParser) -> None:
    """Adds the arguments of `predict`."""
    verb.add_argument("run", metavar="RUN", help="run directory, checkpoint file, or latest")
    verb.add_argument("inputs", nargs="+", metavar="INPUT", help="file, directory, pattern with *, or - for standard input")
    verb.add_argument("--format", choices=FORMATS, default="jsonl", help="of the output (default: jsonl)")
    verb.add_argument("--output", metavar="FILE", help="write to this file instead of standard output")
    verb.add_argument("--device", default="auto", help="auto (as in training), cpu, cuda, cuda:1 or mps")
    verb.add_argument("--batch-size", type=positive, default=32, metavar="N", help="items in a forward pass (default: 32)")
    verb.add_argument("--top-k", type=positive, metavar="K", help="most probable labels to list (default: 5, of words 1)")
    verb.set_defaults(do=predict)


def positive(text: str) -> int:
    """Returns the whole number in an argument; raises ValueError, which argparse reports, unless it is 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def predict(options: argparse.Namespace) -> None:
    """Writes what the model predicts; reports what was skipped on stderr, and ends with status 3 if anything was."""
    from arclight.checkpoint.contents import restore  # takes seconds to import
    from arclight.inference.pipeline import BadItem, read_items
    from arclight.inference.predictor import Predictor

    predictor = Predictor(restore(options.run), device=options.device, batch_size=options.batch_size)
    console = open_console(file=sys.stderr)
    counts = {"predicted": 0, "skipped": 0}
    found = predictor.predict(read_items(predictor.pipeline, map(Path, options.inputs)), top_k=options.top_k)

    def records() -> Iterator[dict[str, Any]]:
        with progress(console, is_shown=console.is_terminal and bool(options.output or not sys.stdout.isatty())) as advance:
            for one in found:
                counts["skipped" if isinstance(one, BadItem) else "predicted"] += 1
                if isinstance(one, BadItem):
                    print_lines(console, [f"skipped {one}"])
                else:
                    yield one
                advance(counts)

    texts = render(records(), options.format, predictor.pipeline)
    with opened(options.output) as file:
        for text in texts:
            file.write(printable(text) if file.isatty() else text)
    if not sum(counts.values()):
        suffixes = " ".join(predictor.pipeline.suffixes)
        raise InputError(
            f"{', '.join(options.inputs)}: no files to predict; this run takes {predictor.pipeline.kind} ({suffixes})"
        )
    hint = "" if counts["predicted"] else f"; this run takes {predictor.pipeline.kind}"
    print_lines(console, [f"{counts['predicted']:,} predicted, {counts['skipped']:,} skipped{hint}"])
    if counts["skipped"]:
        sys.exit(SKIPPED)


@contextlib.contextmanager
def opened(path: str | None) -> Iterator[IO[str]]:
    """Context manager that yields the file to write to; raises InputError when it cannot be written."""
    if path is None:
        if hasattr(sys.stdout, "reconfigure"):  # names of files need not be UTF-8
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        file = Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115  # closed below
    except OSError as error:
        raise InputError(f"--output {path} cannot be written: {error.strerror}; name another file") from error
    with file:
        yield file


@contextlib.contextmanager
def progress(console: Any, *, is_shown: bool) -> Iterator[Any]:
    """Context manager that shows a progress bar on a terminal, and yields what updates its counts."""
    if not is_shown:
        yield lambda counts: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} items, {task.fields[skipped]:,} skipped"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, skipped=0)
        yield lambda counts: bar.update(task, completed=sum(counts.values()), skipped=counts["skipped"])
