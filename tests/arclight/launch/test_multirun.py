"""A multirun continues when one of its runs fails, and ends with a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from arclight.errors import InputError
from arclight.launch import multirun


def write_runs(folder: Path) -> None:
    runs = {
        "0-synthetic_images-cnn": [
            "a=1 seed=1",
            {"status": "finished", "monitor": "val/f1", "val/f1": 0.5, "test/f1": 0.25, "time/total_s": 7},
        ],
        "10-synthetic_images-cnn": ["a=1 seed=3", {"status": "running"}],
        "2-synthetic_images-cnn": ["a=1 seed=2", {"status": "failed", "error": "out of luck\nand more"}],
    }
    for name, (overrides, results) in runs.items():
        (folder / name).mkdir()
        (folder / name / "overrides.txt").write_text(str(overrides).replace(" ", "\n"))
        (folder / name / "results.json").write_text(json.dumps(results))


def test_the_table_shows_how_each_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path)
    with pytest.raises(SystemExit) as ended:
        multirun.MultirunTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r" *\d+  ", line)]
    assert [line.split()[0] for line in lines] == ["0", "2", "10"]
    assert all(words in lines[0] for words in ("seed=1", "finished", "0.500", "0.250", "7"))
    assert "failed: out of luck" in lines[1]
    assert "running" in lines[2]
    assert "a=1" not in "".join(lines)


def test_a_multirun_whose_runs_all_finished_exits_with_0(tmp_path: Path) -> None:
    (tmp_path / "0-x").mkdir()
    (tmp_path / "0-x" / "results.json").write_text('{"status": "finished"}')
    multirun.MultirunTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))


def test_an_empty_multirun_has_a_table() -> None:
    Console(quiet=True).print(multirun.to_table([], []))
    assert multirun.varying_overrides([]) == []


def test_outside_a_multirun_errors_are_raised() -> None:
    with pytest.raises(InputError), multirun.continue_on_error():
        raise InputError("seed=x")
