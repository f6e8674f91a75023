"""What a process of a run gets from its launcher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arclight.config.compose import RunConfig
from arclight.launch import process
from arclight.runs.resume import NEW_RUN_DIR_FILE


def test_a_restart_continues_the_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = RunConfig({"seed": 0}, ("seed=0",), "a", "b", Path("earlier"), 0.0, resume="auto", new_folder=Path("new"))
    monkeypatch.setenv(process.RUN_CONFIG, given.to_json())
    monkeypatch.setenv(NEW_RUN_DIR_FILE, str(tmp_path / process.NEW_RUN_DIR))
    assert process.given_config() == given
    (tmp_path / process.NEW_RUN_DIR).write_text("new_2")
    assert process.given_config() == replace(given, folder=Path("new_2"), new_folder=None)
