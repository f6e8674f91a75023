"""Runs in processes of their own: as many as the config requests; the one that dies is named."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arclight import hardware
from arclight.config.compose import compose
from arclight.distributed.environment import Launch
from arclight.distributed.signals import Interrupted
from arclight.errors import InputError, ProcessError
from arclight.hardware import Decision
from arclight.launch import launcher, process
from arclight.launch.launcher import Node

SETTINGS = {"max_restarts": 2}


def planned(devices: Any, num_nodes: int = 1, strategy: str = "ddp") -> dict[str, Decision]:
    values = {"devices": devices, "num_nodes": num_nodes, "strategy": strategy}
    return {name: Decision(value, "") for name, value in values.items()}


@pytest.mark.parametrize(
    ("started_by", "plan", "num_processes"),
    [
        (Launch(), planned(1, strategy="auto"), None),
        (Launch(), planned(1), None),
        (Launch(), planned(4), 4),
        (Launch(), planned([1, 3]), 2),
        (Launch(), planned(2, strategy="fsdp"), 2),
        (Launch(kind="torchrun", rank=1, world_size=2, local_world_size=2), planned(2), None),
        (Launch(kind="torchrun", world_size=4, local_world_size=2, num_nodes=2), planned(2, 2), None),
        (Launch(kind="slurm", world_size=8, local_world_size=8), planned(8), None),
        (Launch(kind="slurm", world_size=1, local_world_size=1), planned(4), 4),
        (Launch(kind="mpi", world_size=2, local_world_size=2), planned(2), None),
    ],
)
def test_processes_are_started_where_no_launcher_has(
    started_by: Launch, plan: dict[str, Decision], num_processes: int | None
) -> None:
    node = Node.of(started_by, plan, SETTINGS)
    assert node.starts_processes == (num_processes is not None)
    if num_processes:
        assert (node.num_processes, node.max_restarts) == (num_processes, 2)


def test_several_machines_meet_at_the_master_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MASTER_ADDR", "first.local"), ("MASTER_PORT", "29501"), ("NODE_RANK", "1")):
        monkeypatch.setenv(name, value)
    node = Node.of(Launch(), planned(2, num_nodes=2), SETTINGS)
    assert (node.num_processes, node.num_nodes, node.rank, node.master_address) == (2, 2, 1, "first.local:29501")


def test_the_master_address_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    given = {
        "SLURM_JOB_ID": "1234",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_NODEID": "1",
        "SLURM_NODELIST": "node[07-08]",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    launched = Launch(kind="slurm", rank=1, world_size=2, local_world_size=1, node_rank=1, num_nodes=2)
    node = Node.of(launched, planned(8, num_nodes=2), SETTINGS)
    assert (node.rank, node.master_address) == (1, "node07:16234")


def test_a_missing_master_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"trainer.num_nodes=2: on every machine, set MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        Node.of(Launch(), planned(2, num_nodes=2), SETTINGS)


def test_the_environment_passes_the_config_and_is_restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_config = compose(["seed=3"])
    with launcher.environment_for(run_config, num_threads=3, files=tmp_path):
        assert json.loads(os.environ[launcher.RUN_CONFIG])["settings"] == run_config.settings
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert launcher.RUN_CONFIG not in os.environ
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_agent_leaves_signals_to_the_forwarder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handled: list[str] = []

    def elastic_launch(config: Any, program: str) -> Any:
        handled.extend(config.signals_to_handle.split(","))
        return lambda *arguments: None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", elastic_launch)
    run_config = compose(["seed=3"])
    run_config.folder.mkdir(parents=True, exist_ok=True)
    (run_config.folder / "results.json").write_text('{"status": "finished"}')
    launcher.start(run_config, Node(num_processes=2, starts_processes=True), num_threads=1)
    assert handled == ["SIGHUP", "SIGQUIT"]  # its own handlers would kill a run that saves for long


class Failed:
    """A process as torch's agent reports it."""

    def __init__(self, exitcode: int, message: str = "", signal_name: str = "<N/A>") -> None:
        self.exitcode, self.pid, self._signal = exitcode, 77, signal_name
        self.error_file = "error.json" if message else "<N/A>"
        self.error_file_data = {"message": {"message": message}}

    def signal_name(self) -> str:
        return self._signal


class Failures:
    def __init__(self, failures: dict[int, Failed]) -> None:
        self.failures = failures

    def get_first_failure(self) -> tuple[int, Failed]:
        return next(iter(self.failures.items()))


@pytest.mark.parametrize(
    ("failures", "error", "message"),
    [
        ({0: Failed(2, "seed=-1 is wrong")}, InputError, "^seed=-1 is wrong$"),
        (
            {0: Failed(1, "RuntimeError: Connection reset by peer"), 1: Failed(-9, signal_name="SIGKILL")},
            ProcessError,
            r"^process 1 of 2 \(pid 77\) was ended by SIGKILL; the others were stopped$",
        ),
        (
            {1: Failed(1, "ValueError: x"), 0: Failed(-15, signal_name="SIGTERM")},
            ProcessError,
            r"^process 1 of 2 \(pid 77\) ended with exit status 1; the others were stopped: ValueError: x$",
        ),
        ({0: Failed(3)}, ProcessError, r"process 0 of 2 \(pid 77\) ended with exit status 3; the others were stopped$"),
    ],
)
def test_the_first_failure_is_reported_not_its_consequences(failures: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        launcher.raise_first_failure(Failures(failures), Node(num_processes=2, starts_processes=True))  # type: ignore[arg-type]


def test_the_status_of_a_run_that_died_is_written(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"status": "running", "seed": 1}')
    launcher.write_status_if_running(tmp_path, "failed")
    launcher.write_status_if_running(tmp_path, "interrupted")
    assert json.loads((tmp_path / "results.json").read_text()) == {"status": "failed", "seed": 1}


def test_a_score_is_that_of_the_monitored_metric(tmp_path: Path) -> None:
    run = launcher.Run(tmp_path, results={"monitor": "val/f1", "val/f1": 0.5}, model="net")
    assert (run.score, run.model) == (0.5, "net")
    assert math.isnan(launcher.Run(tmp_path, results={"monitor": "val/f1", "val/f1": None}).score)
    assert math.isnan(launcher.Run(tmp_path, results={}).score)


@pytest.mark.parametrize(("reason", "printed"), [(KeyboardInterrupt(), ""), (Interrupted(15), "\nInterrupted\n")])
def test_a_start_that_is_stopped_leaves_no_directory(
    reason: BaseException, printed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise reason

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("arclight.runs.experiment.run", stop)
    with pytest.raises(type(reason)):
        launcher.run(compose(["experiment=demo"]))
    assert not list(tmp_path.glob("outputs/*/*"))
    assert capfd.readouterr().err == printed  # the program prints a KeyboardInterrupt


def test_a_multirun_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    hardware_info = hardware.HardwareInfo(
        num_cores=2, memory_bytes=2**34, launch=Launch(kind="torchrun", world_size=2, local_world_size=2)
    )
    monkeypatch.setattr(hardware, "probe", lambda: hardware_info)
    monkeypatch.setattr(launcher, "in_multirun", lambda: True)
    with pytest.raises(InputError, match="a multirun starts processes itself: run `python train.py -m ...` without torchrun"):
        launcher.run(compose(["experiment=demo"]))


def test_the_launcher_does_not_import_lightning() -> None:
    code = "import sys, arclight.launch.launcher, arclight.distributed.signals; print('lightning' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "False\n"


def test_an_input_error_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(launcher.RUN_CONFIG, compose(["experiment=demo", "seed=-1"]).to_json())
    message = []
    for attempt in (0, 1):
        error = tmp_path / "run" / f"attempt_{attempt}" / "0" / "error.json"
        error.parent.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error))
        if attempt:
            monkeypatch.delenv(launcher.RUN_CONFIG)  # nothing is trained
        with pytest.raises(SystemExit) as ended:
            process.train_in_this_process()
        assert ended.value.code == launcher.INPUT_ERROR
        message.append(json.loads(error.read_text())["message"]["message"])
    assert message == ["seed=-1 must be a whole number from 0 to 4294967295, or null, which draws one (set by seed=-1)"] * 2
