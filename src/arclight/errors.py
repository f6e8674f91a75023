"""Errors for users: the exceptions, suggestions of names, several errors as one, and the first line of any other error."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

REMARK = "(raised as a result of"  # SQLAlchemy says where before it says what
LONGEST_LINE = 300  # characters


class InputError(ValueError):
    """A value that the user gave is wrong.

    The message names the value, what is allowed, and what to type. Bugs of our own are never raised as this, so that they keep
    their traceback.

    Args:
        message: for the user.
        key: dotted key of the config that is wrong; None for everything else.
        suggestions: what was probably meant, best first: "KEY", a name in place of the key, or "KEY=VALUE".
        errors: where this error reports several, each of them.
    """

    def __init__(
        self, message: str, *, key: str | None = None, suggestions: Iterable[str] = (), errors: Sequence[InputError] = ()
    ) -> None:
        super().__init__(message)
        self.key = key
        self.suggestions = tuple(suggestions)
        self.errors = tuple(errors) or (self,)


class OtherDataError(InputError):
    """A run was to be resumed on other data than it was trained on."""


class ProcessError(RuntimeError):
    """A process that this one started for a run ended before its work was done; the message names it and how it ended."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error, short enough for a message; empty where there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith(REMARK)), "")[:LONGEST_LINE]


def raised_last_in(error: BaseException, prefix: str) -> bool:
    """Returns whether the code that raised an error is in a module whose dotted name has this prefix."""
    return "".join(modules_of(error)[-1:]).startswith(prefix)


def raised_by_package(error: BaseException) -> bool:
    """Returns whether an error passed through the code of installed packages and Python only, on its way to its catcher."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
    names = modules_of(error)[1:]
    return bool(files) and all(map(is_installed, files)) and not any(name.startswith("arclight.") for name in names)


def is_installed(file: str) -> bool:
    """Returns whether a source file is of an installed package, or of Python itself."""
    of_python = file.startswith(("<frozen", sysconfig.get_path("stdlib") + os.sep))
    return of_python or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def modules_of(error: BaseException) -> list[str]:
    """Returns the names of the modules in the traceback of an error, that of the code that raised it last."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]


def shown(value: object) -> str:
    """Returns a value as Python writes it, short enough for a message."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python converts
        text = "a very large number"
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."


def closest(name: object, allowed: Iterable[object]) -> list[str]:
    """Returns the allowed name most like `name`, as a list of one; an empty list when none is near."""
    return difflib.get_close_matches(
        str(name)[:LONGEST_LINE], [text for text in allowed if isinstance(text, str)], n=1, cutoff=0.6
    )


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns a sentence that offers the name most like `name`, or all of them when none is near."""
    names = sorted(allowed)
    near = closest(name, names)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(names)}."


def join_errors(errors: Sequence[InputError], command: str = "") -> InputError:
    """Returns one error for several, with the command that was probably meant."""
    lines = [line for error in errors for line in str(error).split("\n")]
    text = "\n".join(lines) if len(errors) == 1 else "\n  ".join([f"{len(errors)} errors:", *lines])
    return InputError(f"{text}\nTry: {command}" if command else text, errors=errors)
