"""A real run is started and its results are read; one that fails is reported; no process is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arclight.benchmark import train as train_module
from arclight.benchmark.train import train, train_in, wait_for
from arclight.errors import InputError
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES


def stand_in(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `code` the train.py that is started."""
    (folder / "conf").mkdir()
    (folder / "train.py").write_text(code)
    monkeypatch.setattr(train_module, "CONF", folder / "conf")


@pytest.mark.processes
def test_two_processes_time_their_communication(tmp_path: Path) -> None:
    watched = "+callbacks.communication._target_=benchmarks.communication.CommunicationTime"
    two = ["strategy=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=1", "precision=fp32", "logger=none"]
    results = train_in(tmp_path, [*TINY_IMAGES, *two, watched], num_threads=1)
    assert results["status"] == "finished"
    assert results["train/step_ms"] > 0
    (file,) = tmp_path.glob("outputs/*/*/communication.json")
    measured = json.loads(file.read_text())
    assert measured["world_size"] == 2
    assert measured["gradient_bytes"] == 4 * results["parameters"]
    assert measured["num_buckets"] >= 1
    for name in ("with_ms", "without_ms", "in_flight_ms", "all_reduce_ms"):
        assert len(measured[name]) == 5
        assert min(measured[name]) > 0
    for flying, whole in zip(measured["in_flight_ms"], measured["with_ms"], strict=True):
        assert flying <= whole


def test_the_environment_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import json, os, pathlib, sys
folder = pathlib.Path("outputs/a/b")
folder.mkdir(parents=True)
results = {"threads": os.environ["OMP_NUM_THREADS"], "rank": os.environ.get("LOCAL_RANK"), "overrides": sys.argv[1:]}
(folder / "results.json").write_text(json.dumps(results))
"""
    stand_in(tmp_path, code, monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "3")
    results = train(["a=1"], num_threads=5)
    assert results == {"threads": "5", "rank": None, "overrides": ["a=1"]}


def test_an_error_in_the_overrides_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "import sys; print('error: a=1 is wrong', file=sys.stderr); sys.exit(2)", monkeypatch)
    with pytest.raises(InputError, match="^a=1 is wrong$"):
        train(["a=1"], num_threads=1)


def test_a_run_that_fails_is_reported_with_the_end_of_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "raise SystemExit('the disk is on fire')", monkeypatch)
    with pytest.raises(RuntimeError, match=r"(?s)python train.py a=1 exited with status 1:.*the disk is on fire"):
        train(["a=1"], num_threads=1)


@pytest.mark.processes
def test_a_run_that_hangs_is_killed_with_all_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', {mark!r}]); "
    mark = str(tmp_path / "mark")
    stand_in(tmp_path, child.format(mark=mark) + "time.sleep(99)", monkeypatch)
    with pytest.raises(RuntimeError, match="took more than 2 s"):
        train([], num_threads=1, timeout_s=2)
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

    monkeypatch.setattr(train_module.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), (tmp_path / "output").open("w") as output:
        wait_for([sys.executable, "-c", "import time; time.sleep(99)"], tmp_path, {}, output.fileno(), 99)
    assert started[0].poll() is not None
