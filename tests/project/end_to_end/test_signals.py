"""A signal finishes the step, saves, exits with 128 + its number; resume ends equal (arclight.launch.launcher)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight.checkpoint import contents
from arclight.config.locations import CONF
from arclight.launch import launcher
from arclight.loggers.csv import read_rows
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

pytestmark = pytest.mark.processes

LONG = [
    *(*TINY_IMAGES, "precision=fp32", "trainer.accelerator=cpu", "trainer.max_epochs=25", "trainer.log_every_n_steps=3"),
    *("data.max_batch_per_device=4", "callbacks=weight_averaging", "checkpoint.every_minutes=null"),
]
TWO = ["strategy=ddp_cpu", "trainer.devices=2"]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("placing", "number", "to_one"),
    [
        ([], signal.SIGUSR1, False),
        (TWO, signal.SIGINT, False),
        (TWO, signal.SIGUSR2, False),
        (TWO, signal.SIGTERM, True),
    ],
    ids=["one process", "the starter, by Ctrl-C", "the starter, by SLURM", "one process of two"],
)
def test_a_signal_stops_the_run_which_resumes_to_the_same_result(placing: list[str], number: int, to_one: bool) -> None:
    whole = arclight.run([*LONG, *placing])
    command = [sys.executable, str(CONF.parent / "train.py"), *LONG, *placing]
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folder = wait_for_first_save(stopped, whole.folder)
    os.kill(launch_ranks(stopped.pid)[-1] if to_one else stopped.pid, number)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + number, err
    assert "Traceback" not in err
    results = json.loads((folder / "results.json").read_text())
    assert (results["status"], results["signal"]) == ("interrupted", signal.Signals(number).name)
    assert 0 < results["steps"] < whole.results["steps"]
    assert contents.steps_done(contents.last_checkpoint(folder)) == results["steps"]
    again = arclight.run([*LONG, *placing, "resume=auto"])
    assert again.folder.resolve() == folder.resolve()
    states = [contents.load_checkpoint(contents.last_checkpoint(run.folder))["state_dict"] for run in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {key: value for key, value in again.results.items() if key.startswith(("val/", "test/"))} == {
        key: value for key, value in whole.results.items() if key.startswith(("val/", "test/"))
    }
    curves = [[(row["step"], row.get("train/loss")) for row in read_rows(run.folder / "metrics.csv")] for run in (whole, again)]
    assert curves[0] == curves[1]


INTERRUPTED_BY_IMPORT = """
import runpy, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = {arguments!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", ["hydra", "arclight.launch.launcher", "torch", "lightning.pytorch", "arclight.runs.dry_run"])
def test_ctrl_c_before_training_prints_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    code = INTERRUPTED_BY_IMPORT.format(name=name, arguments=[str(CONF.parent / "train.py"), *TINY_IMAGES])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False)
    assert (ended.returncode, ended.stderr) == (130, "\nInterrupted\n")
    assert not [*tmp_path.rglob("*.yaml"), *tmp_path.rglob("overrides.txt")]


def wait_for_first_save(process: subprocess.Popen[str], other: Path) -> Path:
    while process.poll() is None:
        for file in Path("outputs").glob("*/*/checkpoints/last.ckpt"):
            if other not in file.parents:
                return file.parent.parent
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def launch_ranks(pid: int) -> list[int]:
    from tests.project.end_to_end.test_processes import ranks_of

    return [process.pid for process, _ in sorted(ranks_of(pid), key=lambda found: found[1])]


def test_the_signal_in_results_json() -> None:
    known: list[tuple[dict[str, Any], int]] = [
        ({"status": "interrupted", "signal": "SIGTERM"}, 15),
        ({"status": "interrupted"}, 0),
        ({"status": "finished", "signal": "SIGTERM"}, 0),
        ({}, 0),
    ]
    assert [launcher.signal_of(results) for results, _ in known] == [number for _, number in known]
