"""Output that never stops a run: a full disk, a pipe whose reader has ended or a closed stream only costs the output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

failures: list[str] = []  # of the streams of this process, for the log of a run that starts later


class TolerantStream:
    """Forwards to a text stream; from its first failed write on, everything is dropped and one warning is logged."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream = stream
        self._name = name
        self._is_broken = False

    def write(self, text: str) -> int:
        """Returns the number of characters, whether or not they could be written."""
        if not self._is_broken:
            with self._tolerating():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if not self._is_broken:
            with self._tolerating():
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _tolerating(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._fail(error.strerror or str(error))
        except ValueError:
            if not self._stream.closed:  # an error of the text, such as a character that the encoding does not have
                raise
            self._is_broken = True  # whoever closed it knows

    def _fail(self, reason: str) -> None:
        self._is_broken = True
        with contextlib.suppress(OSError, ValueError):  # for the rest in its buffer, and for other processes
            fill_descriptor(self._stream.fileno())
        report(f"{self._name} cannot be written ({reason}): its output is dropped")


def print_loading() -> None:
    """Prints, on the terminal of the first process, that torch and Lightning are imported now, which takes seconds."""
    stream = sys.stderr
    with contextlib.suppress(OSError, ValueError):  # of a closed stream
        if "torch" not in sys.modules and stream is not None and stream.isatty() and os.environ.get("RANK", "0") == "0":
            stream.write("Loading torch and Lightning\n")


@contextlib.contextmanager
def tolerate_broken_output() -> Iterator[None]:
    """Context manager in which printing to stdout and stderr raises no error; inside another one it does nothing."""
    if isinstance(sys.stdout, TolerantStream) or isinstance(sys.stderr, TolerantStream):
        yield
        return
    before = sys.stdout, sys.stderr
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would take its place, and receive what is printed
            fill_descriptor(descriptor)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            setattr(sys, name, TolerantStream(stream or nowhere, name))
            if stream is None:
                report(f"{name} is closed: its output is dropped")
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
            failures.clear()


def fill_descriptor(descriptor: int) -> None:
    """Lets a file descriptor lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def report(failure: str) -> None:
    """Logs that output is dropped, now and in the log of a run that starts later."""
    failures.append(failure)
    log.warning(failure)
