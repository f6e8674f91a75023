"""Wrong options of `serve` are reported before anything is loaded."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from arclight.__main__ import main
from arclight.serving.command_line import is_loopback


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("words --workers 0", "--workers 0 must be above 0"),
        ("words --max-body-mb -1", "--max-body-mb -1.0 must be above 0"),
        ("words --timeout nan", "--timeout nan must be above 0"),
        ("words --port 70000", "--port 70000 must be between 0 and 65535"),
        ("words --threads -1", "--threads -1 must be 0 or more"),
        ("nowhere", "nowhere is not a run directory"),
        ("words --host 203.0.113.7", "cannot listen at 203.0.113.7:8000"),
    ],
)
def test_a_wrong_option(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments.split()])
    assert ended.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit):
            main(["serve", "words", "--port", str(other.getsockname()[1])])
    assert "(Address already in use); choose another --port" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    with pytest.raises(SystemExit):
        main(["serve", "words"])
    assert "serve needs uvicorn; type: pip install 'arclight[serve]'" in capsys.readouterr().err


def test_a_run_that_cannot_be_loaded_ends_with_its_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "missing", "--port", "0"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: missing is not a run"


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)])
def test_addresses_of_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
