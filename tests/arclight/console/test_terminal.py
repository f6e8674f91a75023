"""Terminal output: plain lines in logs, nothing folded in commands, no markup."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from arclight.console.terminal import (
    StderrHandler,
    format_metric,
    is_plain,
    open_console,
    print_lines,
    print_pairs,
    print_tables,
    printable,
    relative_path,
    silence_lightning,
)

LONG = "python -m arclight evaluate outputs/" + "a-very-long-name/" * 12


class Terminal(io.StringIO):
    """A stream whose isatty() is True."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def table() -> Table:
    made = Table(title=Text("Per class"), title_justify="left")
    for name in ("", "f1"):
        made.add_column(name)
    made.add_row(Text("[red]猫[/red]"), "0.5")
    return made


def test_a_terminal_gets_boxes() -> None:
    stream = Terminal()
    console = open_console(file=stream)
    print_tables(console, [table()])
    assert console.is_terminal
    assert "┃" in stream.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "unknown"), ("", "")])
def test_logs_and_no_color_get_plain_lines(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name:
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FORCE_COLOR", "1")  # set by some CI machines; a log is not a terminal
    stream = Terminal() if name else io.StringIO()
    console = open_console(file=stream)
    print_tables(console, [table()])
    print_pairs(console, [("data", "[b]x"), ("longer", "y :smile:")])
    print_lines(console, [LONG])
    assert not console.is_terminal
    assert stream.getvalue().splitlines() == [
        "Per class",
        "               f1",
        "[red]猫[/red]  0.5",
        "data    [b]x",
        "longer  y :smile:",
        LONG,
    ]


def test_an_empty_no_color_is_ignored() -> None:
    assert not is_plain({"NO_COLOR": "", "TERM": "xterm"})
    assert is_plain({"NO_COLOR": "0"})


def test_a_line_to_copy_is_never_folded() -> None:
    stream = Terminal()
    print_lines(open_console(file=stream), [LONG])
    assert stream.getvalue() == LONG + "\n"


def test_texts_are_folded_beside_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "")
    stream = Terminal()
    print_pairs(open_console(file=stream), [("name", "a word and another " * 4)])
    lines = Text.from_ansi(stream.getvalue()).plain.splitlines()
    assert len(lines) > 1
    assert lines[0].startswith("name  a word")
    assert all(line.startswith("      ") and len(line) <= 40 for line in lines[1:])


def test_a_quiet_console_prints_nothing() -> None:
    stream = Terminal()
    console = open_console(quiet=True, file=stream)
    print_tables(console, [table()])
    print_pairs(console, [("a", "b")])
    print_lines(console, ["c"])
    assert stream.getvalue() == ""


def test_characters_outside_the_encoding_are_replaced() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_lines(open_console(file=stream), ["猫 ± 1"])
    stream.flush()
    assert stream.buffer.getvalue() == b"? ? 1\n"  # type: ignore[attr-defined]


def test_paths_are_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert relative_path(Path("outputs") / "x") == relative_path(tmp_path / "here" / "outputs" / "x") == "outputs/x"
    assert relative_path(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")


def test_a_warning_goes_to_the_current_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = StderrHandler()
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "message", None, None))
    assert later.getvalue() == "message\n"


def test_lightning_logs_warnings_only() -> None:
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with silence_lightning(["This is harmless.*"]):
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
        warnings.warn("This is harmless at all", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="but this"):
            warnings.warn("but this does", UserWarning, stacklevel=1)
    assert logger.level == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.91314, "0.913"), (0.9, "0.900"), (0.0432101, "0.0432"), (6.5083, "6.51"), (100.0, "100"), (48211.4, "48,200")],
        *[(0.0, "0"), (-0.0, "0"), (-0.01, "-0.0100"), (1.0, "1.00"), (0.99996, "0.99996"), (1.2e-7, "1.20e-07")],
        *[(float("nan"), "nan"), (float("-inf"), "-inf")],
    ],
)
def test_metrics_have_three_significant_figures(value: float, text: str) -> None:
    assert format_metric(value) == text


def test_texts_of_strangers_command_no_terminal() -> None:
    assert printable("a\x1b[2Jb\x9b1m\r\u202e\udcff\tc\nd é猫") == "a\ufffd[2Jb\ufffd1m\ufffd\ufffd\ufffd\tc\nd é猫"
    stream = Terminal()
    console = open_console(file=stream)
    made = table()
    made.add_row(Text("\x1b]0;title\x07"), "\x1b[2J")
    print_tables(console, [made])
    print_lines(console, ["\x1b[2J\udcff"])
    print_pairs(console, [("\x1b[2J", "\x9b2J")])
    assert not {"\x1b]", "\x1b[2J", "\x9b", "\udcff"} & {
        part for part in ("\x1b]", "\x1b[2J", "\x9b", "\udcff") if part in stream.getvalue()
    }
    assert "\x1b[1m" in stream.getvalue(), "rich's own styles stay"
