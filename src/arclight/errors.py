"""Mistakes of the user: one class to raise, one place that tells them without a traceback."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A value that the user gave is wrong.

    The message names the value, what is allowed, and the way out. Our own mistakes (bugs) are never raised as this, so
    that they keep their traceback.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A sentence that offers the name most like `name`, or all of them when none is near."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(names)}."


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Inside, an InputError ends the program with its message and exit status 2; ARCLIGHT_DEBUG=1 shows the traceback."""
    try:
        yield
    except InputError as mistake:
        if os.environ.get("ARCLIGHT_DEBUG") == "1":
            raise
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
