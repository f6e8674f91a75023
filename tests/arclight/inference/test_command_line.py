"""The progress bar of `predict`, and numbers in its arguments."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from arclight.inference.command_line import positive, progress


def test_progress_is_shown_on_a_terminal_only() -> None:
    for is_shown in (True, False):
        file = io.StringIO()
        with progress(Console(file=file, force_terminal=True, width=80), is_shown=is_shown) as advance:
            advance({"predicted": 2, "skipped": 1})
        assert ("3 items, 1 skipped" in file.getvalue()) == is_shown


def test_a_number_must_be_positive() -> None:
    assert positive("3") == 3
    for text in ("0", "-1", "x", "1.5"):
        with pytest.raises(ValueError, match=r"^$|invalid literal"):
            positive(text)
