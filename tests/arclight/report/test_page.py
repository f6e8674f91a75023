"""Formatting of values and writing of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.report.page import format_duration, format_value, is_empty, label, shorten, write_page


def test_values() -> None:
    assert [format_value(value) for value in (None, 1234567, 0.5, float("nan"), "x", True)] == [
        "-",
        "1,234,567",
        "0.500",
        "NaN",
        "x",
        "true",
    ]
    assert [format_value(0.25, "share"), format_value(7.0, "s"), format_value(1234, "name")] == ["25.0 %", "7.00 s", "1234"]
    assert [format_value(value) for value in (48211.37, 0.99996, 0.0)] == ["48,200", "0.99996", "0"]
    assert [format_duration(value) for value in (5, 65, 3700)] == ["5 s", "1 min 05 s", "1 h 01 min"]


def test_keys_in_words_and_values_that_say_nothing() -> None:
    assert [label(key) for key in ("num_cores", "omp_num_threads", "gpus.0.name", "checkpoint/kept")] == [
        "cores",
        "OMP threads",
        "GPUs 0 name",
        "checkpoint kept",
    ]
    assert [is_empty(value) for value in (None, "", [], {}, 0, False)] == [True] * 4 + [False] * 2


def test_wide_letters_take_two_places() -> None:
    assert shorten("日本語の名前がとても長い") == "日本語の名前…"


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        write_page(tmp_path / "nowhere" / "page.html", "x")
    assert list(tmp_path.iterdir()) == []
