"""Mistakes of the user: one class to raise, one way to name what was probably meant; what other errors say in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

REMARK = "(raised as a result of"  # SQLAlchemy says where before it says what
LONGEST_LINE = 300  # characters


class InputError(ValueError):
    """A value that the user gave is wrong.

    The message names the value, what is allowed, and the way out. Our own mistakes (bugs) are never raised as this, so
    that they keep their traceback.
    """


class ProcessError(RuntimeError):
    """A process that this one started for a run ended before its work was done; the message names it and how it ended."""


def first_line(error: BaseException) -> str:
    """What an error says first, short enough for a message; empty where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith(REMARK)), "")[:LONGEST_LINE]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A sentence that offers the name most like `name`, or all of them when none is near."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(names)}."


def join_errors(errors: Sequence[str], command: str = "") -> str:
    """Several messages as one, and the command that was probably meant."""
    lines = [line for error in errors for line in error.split("\n")]
    text = "\n".join(lines) if len(errors) == 1 else "\n  ".join([f"{len(errors)} mistakes:", *lines])
    return f"{text}\nthis would do: {command}" if command else text
