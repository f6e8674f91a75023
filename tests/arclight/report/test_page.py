"""Formatting of values and writing of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.report.page import format_duration, format_value, shorten, write_page


def test_values() -> None:
    assert [format_value(value) for value in (None, 1234567, 0.5, float("nan"), "x", True)] == [
        "-",
        "1,234,567",
        "0.5",
        "NaN",
        "x",
        "true",
    ]
    assert [format_value(0.25, "share"), format_value(7.0, "s"), format_value(1234, "name")] == ["25.00 %", "7 s", "1234"]
    assert [format_duration(value) for value in (5, 65, 3700)] == ["5 s", "1 min 05 s", "1 h 01 min"]


def test_wide_letters_take_two_places() -> None:
    assert shorten("日本語の名前がとても長い") == "日本語の名前…"


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        write_page(tmp_path / "nowhere" / "page.html", "x")
    assert list(tmp_path.iterdir()) == []
