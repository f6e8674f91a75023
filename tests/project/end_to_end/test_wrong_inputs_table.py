"""Every row of `wrong_inputs.py` ends in a message that names it; tests/drills/wrong_inputs.py starts each as a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight import hardware, preflight
from arclight.config.compose import compose
from arclight.config.overrides.errors import find_errors
from arclight.errors import InputError
from tests.project.end_to_end.wrong_inputs import Row, rows, together

COMMANDS = together(rows())


def message_of(overrides: list[str], kind: str) -> str:
    """Returns all errors of a command, found without data, net or training."""
    try:
        if kind == "names":
            return "\n".join(map(str, find_errors(overrides, is_multirun=False)))
        run_config = compose(overrides)
        return "\n".join(map(str, preflight.collect(run_config, hardware.probe())))
    except InputError as error:
        return str(error)


def test_there_are_enough_of_them() -> None:
    assert len({row for _, together in COMMANDS for row in together}) == len(rows()) >= 600


@pytest.mark.parametrize(
    ("overrides", "table"), COMMANDS, ids=[f"{number}-{each[1][0].kind}" for number, each in enumerate(COMMANDS)]
)
def test_each_is_named(overrides: list[str], table: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    message = message_of(overrides, table[0].kind)
    unnamed = {" ".join(row.overrides): row.words for row in table if not all(words in message for words in row.words)}
    assert not unnamed, message
    assert not any(tmp_path.iterdir())
