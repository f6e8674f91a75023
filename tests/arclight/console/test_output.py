"""Printing raises no error where nothing can be written: a full disk, a pipe whose reader has ended, a closed stream."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.console import output
from arclight.console.output import TolerantStream, print_loading, tolerate_broken_output

PROGRAM = """
import logging, sys
from arclight.console.output import tolerate_broken_output
from arclight.console.terminal import open_console, print_lines
with tolerate_broken_output():
    console = open_console()
    for number in range(3000):
        print_lines(console, [f"line {number}"])
        print("more", file=sys.stderr)
    with open("file.txt", "w") as file:  # takes the place of a stream that is closed
        print("printed")
        file.write("kept")
sys.exit(7)
"""


def ended_pipe() -> io.TextIOWrapper:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.mark.parametrize("kind", ["full disk", "ended pipe", "closed"])
def test_a_broken_stream_drops_its_output_with_one_warning(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    if kind == "full disk" and not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    stream = open("/dev/full", "w", encoding="utf-8") if kind == "full disk" else ended_pipe()  # noqa: SIM115
    if kind == "closed":
        stream.close()
    tolerant = TolerantStream(stream, "stdout")
    for _ in range(3):
        assert tolerant.write("text") == 4
        tolerant.flush()
    reasons = {"full disk": "No space left on device", "ended pipe": "Broken pipe"}  # whoever closes a stream knows
    expected = [f"stdout cannot be written ({reasons[kind]}): its output is dropped"] if kind in reasons else []
    assert caplog.messages == expected
    stream.close()  # raises nothing, as at the end of a program
    output.failures.clear()


def test_other_errors_of_a_stream_are_raised() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.raises(UnicodeEncodeError):
        TolerantStream(stream, "stdout").write("猫")
    assert TolerantStream(stream, "stdout").encoding == "ascii"


def test_streams_are_restored(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    monkeypatch.setattr(sys, "stderr", None)
    with tolerate_broken_output():
        with tolerate_broken_output():
            print("text")
            print("dropped", file=sys.stderr)
        assert isinstance(sys.stdout, TolerantStream)
        assert output.failures == ["stderr is closed: its output is dropped"]
    assert (sys.stdout, sys.stderr, own.getvalue(), output.failures) == (own, None, "text\n", [])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("redirection", ["> /dev/full", "2> /dev/full", ">&-", "2>&-", "<&- >&- 2>&-", "| head -1"])
def test_a_program_ends_as_usual(redirection: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"set -o pipefail; {sys.executable} program.py {redirection}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 7
    assert (tmp_path / "file.txt").read_text() == "kept"
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize(
    ("loaded", "is_terminal", "rank", "printed"),
    [(False, True, "0", True), (True, True, "0", False), (False, False, "0", False), (False, True, "1", False)],
)
def test_a_terminal_shows_what_takes_seconds(
    loaded: bool, is_terminal: bool, rank: str, printed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setitem(sys.modules, "torch", io)
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("RANK", rank)
    print_loading()
    assert stream.getvalue() == ("Loading torch and Lightning\n" if printed else "")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_a_terminal_nothing_fails(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    print_loading()
