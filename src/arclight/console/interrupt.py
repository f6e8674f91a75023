"""Ctrl-C before a run handles signals itself: during imports, composing and checks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def report_interrupt() -> Iterator[None]:
    """Context manager that ends the program with one line and status 130 where Ctrl-C raises KeyboardInterrupt inside."""
    try:
        yield
    except KeyboardInterrupt:
        print_interrupt()
        sys.exit(128 + signal.SIGINT)


def print_interrupt() -> None:
    """Prints that a signal has ended the program."""
    with contextlib.suppress(OSError):  # not print: Ctrl-C may arrive in the middle of one
        os.write(2, b"\nInterrupted\n")
