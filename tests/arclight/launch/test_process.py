"""A process of a run ends with the launcher, also when that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from arclight.config.compose import RunConfig
from arclight.launch import process
from arclight.runs.resume import NEW_RUN_DIR_FILE

END = "process.end_with(int(os.environ['PARENT']))"
CHILD = f"import os, time; from arclight.launch import process; {END}; print('in', flush=True); time.sleep(20); print('out')"
LAUNCHER = (
    f"import os, subprocess, sys; os.environ['PARENT'] = str(os.getpid()); subprocess.run([sys.executable, '-c', {CHILD!r}])"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children")
def test_a_process_ends_when_its_launcher_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "in\n"
        launcher.kill()
        assert launcher.stdout.read() == ""  # the child has ended, too: nobody holds the pipe


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children")
def test_a_process_whose_launcher_has_died_before_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD], env={**os.environ, "PARENT": "1"}, timeout=60, check=False)
    assert ended.returncode == 1


def test_a_restart_continues_the_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = RunConfig({"seed": 0}, ("seed=0",), "a", "b", Path("earlier"), 0.0, resume="auto", new_folder=Path("new"))
    monkeypatch.setenv(process.RUN_CONFIG, given.to_json())
    monkeypatch.setenv(NEW_RUN_DIR_FILE, str(tmp_path / process.NEW_RUN_DIR))
    assert process.given_config() == given
    (tmp_path / process.NEW_RUN_DIR).write_text("new_2")
    assert process.given_config() == replace(given, folder=Path("new_2"), new_folder=None)
