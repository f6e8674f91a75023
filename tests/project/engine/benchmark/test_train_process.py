"""A real run is started, read and cleared away; one that goes wrong says how; none is left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from arclight.benchmark import train_process
from arclight.benchmark.train_process import train, wait_for
from arclight.errors import InputError
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES


def stand_in(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `code` the train.py that is started."""
    (folder / "conf").mkdir()
    (folder / "train.py").write_text(code)
    monkeypatch.setattr(train_process, "CONF", folder / "conf")


@pytest.mark.processes
def test_two_processes_say_what_they_spend_on_each_other() -> None:
    watched = "+callbacks.communication._target_=arclight.benchmark.communication.CommunicationTime"
    two = ["strategy=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=1", "precision=fp32", "logger=none"]
    run = train([*TINY_IMAGES, *two, watched], num_threads=1)
    assert run.results["status"] == "finished"
    assert run.results["train/step_ms"] > 0
    told = run.communication
    assert told["world_size"] == 2
    assert told["gradient_bytes"] == 4 * run.results["parameters"]
    assert told["num_buckets"] >= 1
    for name in ("with_ms", "without_ms", "in_flight_ms", "all_reduce_ms"):
        assert len(told[name]) == 5
        assert min(told[name]) > 0
    for flying, whole in zip(told["in_flight_ms"], told["with_ms"], strict=True):
        assert flying <= whole


def test_the_environment_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import json, os, pathlib, sys
folder = pathlib.Path("outputs/a/b")
folder.mkdir(parents=True)
told = {"threads": os.environ["OMP_NUM_THREADS"], "rank": os.environ.get("LOCAL_RANK"), "overrides": sys.argv[1:]}
(folder / "results.json").write_text(json.dumps(told))
"""
    stand_in(tmp_path, code, monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "3")
    run = train(["a=1"], num_threads=5)
    assert run.results == {"threads": "5", "rank": None, "overrides": ["a=1"]}
    assert run.communication == {}


def test_a_mistake_in_the_overrides_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "import sys; print('error: a=1 is wrong', file=sys.stderr); sys.exit(2)", monkeypatch)
    with pytest.raises(InputError, match="^a=1 is wrong$"):
        train(["a=1"], num_threads=1)


def test_a_run_that_fails_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "raise SystemExit('the disk is on fire')", monkeypatch)
    with pytest.raises(RuntimeError, match=r"(?s)python train.py a=1 ended with status 1:.*the disk is on fire"):
        train(["a=1"], num_threads=1)


@pytest.mark.processes
def test_a_run_that_hangs_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', {mark!r}]); "
    mark = str(tmp_path / "mark")
    stand_in(tmp_path, child.format(mark=mark) + "time.sleep(99)", monkeypatch)
    with pytest.raises(RuntimeError, match="took more than 2 s"):
        train([], num_threads=1, longest_s=2)
    time.sleep(0.2)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_an_interrupt_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if not started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(train_process.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), (tmp_path / "said").open("w") as said:
        wait_for([sys.executable, "-c", "import time; time.sleep(99)"], str(tmp_path), {}, said.fileno(), 99)
    assert started[0].poll() is not None
