"""The command line of `python -m arclight`: what its verbs have in common."""

from __future__ import annotations

import argparse

import pytest

from arclight import __main__ as command_line


@pytest.mark.parametrize(
    "arguments",
    [
        ["latest", "data.root=x", "data.batch_size=3", "--split", "val"],
        ["latest", "--split", "val", "data.root=x", "data.batch_size=3"],
        ["--split", "val", "latest", "data.root=x", "data.batch_size=3"],
        ["latest", "data.root=x", "--split=val", "data.batch_size=3"],
    ],
)
def test_overrides_stand_before_and_after_options(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(command_line, "evaluate", seen.append)
    command_line.main(["evaluate", *arguments])
    assert (seen[0].run, seen[0].split, seen[0].overrides) == ("latest", "val", ["data.root=x", "data.batch_size=3"])


@pytest.mark.parametrize("rest", [["--spilt", "val"], ["more"], ["--x=3"]])
def test_other_arguments_are_an_error(rest: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["evaluate", "latest", "--split", "val", *rest])
    assert ended.value.code == 2
    assert f"unrecognized arguments: {' '.join(rest)}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["report", "latest", "data.root=x"])
    assert "unrecognized arguments: data.root=x" in capsys.readouterr().err
