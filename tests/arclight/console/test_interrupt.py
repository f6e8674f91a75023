"""Ctrl-C ends a program with one line (arclight.console.interrupt)."""

from __future__ import annotations

import pytest

from arclight.console.interrupt import report_interrupt


def test_ctrl_c_is_one_line_and_status_130(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, report_interrupt():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capfd.readouterr().err == "\nInterrupted\n"


def test_everything_else_passes() -> None:
    with pytest.raises(ZeroDivisionError), report_interrupt():
        raise ZeroDivisionError
