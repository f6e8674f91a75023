"""W&B with and without an account, a network and a server that answers; its `login` and `init` are replaced."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import wandb

from arclight.errors import InputError
from arclight.loggers import wandb as wandb_logger
from arclight.loggers.factory import build_loggers, close_loggers
from arclight.loggers.record import Record
from arclight.loggers.wandb import start_run, warn_if_incomplete
from tests.project.engine.loggers.test_factory import WANDB, contents, history, records

DESCRIBED = {"name": "n", "group": "g", "project": "p", "entity": "e"}


class Run:
    """The part of a W&B run that the logger uses."""

    def __init__(self, given: dict[str, Any], recorded: int = 0) -> None:
        self.given = given
        self.id = given.get("id", "of the sweep")
        self.settings = wandb.Settings(mode=given["mode"])
        self.summary = {wandb_logger.ROW: recorded}
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, **options: Any) -> None: ...

    def log(self, row: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Client:
    """Records calls of login and init; `answers` is what login returns or raises, `refuses` what init raises online."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, answers: Any, refuses: Exception | None = None, recorded: int = 0
    ) -> None:
        self.answers, self.refuses, self.recorded = answers, refuses, recorded
        self.asked: list[dict[str, Any]] = []
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setattr(wandb, "login", self.login)
        monkeypatch.setattr(wandb, "init", self.init)

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt
        if isinstance(self.answers, Exception):
            raise self.answers
        return bool(self.answers)

    def init(self, **given: Any) -> Run:
        self.asked.append(given)
        if given["mode"] in ("online", "shared") and self.refuses is not None:
            raise self.refuses
        return Run(given, self.recorded)

    @property
    def modes(self) -> list[str]:
        return [given["mode"] for given in self.asked]


@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize(
    ("answers", "refuses", "modes", "message"),
    [
        (True, None, ["online"], ""),
        (
            wandb.errors.AuthenticationError("API key must have 40+ characters\nmore"),
            None,
            ["offline"],
            "cannot log in (API key",
        ),
        (OSError("no network"), None, ["offline"], "cannot log in (no network): recording offline"),
        (
            True,
            wandb.errors.CommError("timed out\nmore"),
            ["online", "offline"],
            "start online (timed out): recording offline",
        ),
    ],
)
def test_server_errors_are_logged_once_and_the_run_is_recorded(
    mode: Any,
    answers: Any,
    refuses: Exception | None,
    modes: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(monkeypatch, answers, refuses)
    assert start_run(tmp_path, DESCRIBED, mode=mode, record=Record())[0] is not None
    assert client.modes == modes
    assert message in caplog.text
    assert len(caplog.records) == (message != "")
    first = client.asked[0]
    assert {key: first[key] for key in DESCRIBED} == DESCRIBED
    assert all(given["id"] == first["id"] for given in client.asked)
    if modes[0] == "online":
        assert first["resume"] == "allow"
        assert 0 < first["settings"].init_timeout <= 30  # W&B's own would be 90, and no end to its uploads
        assert 0 < first["settings"].finish_timeout <= 300
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": first["id"]}


def test_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(monkeypatch, False)
    assert start_run(tmp_path, DESCRIBED, mode="auto", record=Record())[0] is not None
    assert (client.modes, caplog.records) == (["offline"], [])
    with pytest.raises(InputError, match="mode=online: this machine is not logged in to W&B; run `wandb login`"):
        start_run(tmp_path, DESCRIBED, mode="online", record=Record())


def test_wandb_mode_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, True)
    for mode in ("disabled", "offline"):
        monkeypatch.setenv("WANDB_MODE", mode)
        start_run(tmp_path, DESCRIBED, mode="auto", record=Record())
    assert client.modes == ["disabled", "offline"]


def test_a_sweep_sets_id_project_and_entity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, True)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    start_run(tmp_path, DESCRIBED, mode="auto", record=Record())
    assert not {"id", "project", "entity"} & set(client.asked[0])  # W&B would warn of each
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "of the sweep"}


def test_a_resumed_online_run_sends_the_missing_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trackers.json").write_text('{"wandb": "known"}')
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n1,0.5,\n2,0.4,\n3,,0.3\n4,nan,\n5,0.1,\n")
    client = Client(monkeypatch, True, recorded=2)
    record = Record.read(tmp_path, 4)
    run: Any
    run, repeats = start_run(tmp_path, DESCRIBED, mode="auto", record=record)
    assert client.asked[0]["id"] == "known"
    assert [row[wandb_logger.AXIS] for row in run.rows] == [3, 4]
    assert run.rows[0] == {"val/loss": 0.3, wandb_logger.AXIS: 3, wandb_logger.ROW: 3}
    assert repeats.new({"train/loss": 0.1}, 5) == {"train/loss": 0.1}


def test_a_resumed_online_run_repeats_no_row_that_the_server_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.4\n3,0.3\n4,0.2\n")
    Client(monkeypatch, True, recorded=3)
    run: Any
    run, repeats = start_run(tmp_path, DESCRIBED, mode="auto", record=Record.read(tmp_path, 2))
    assert run.rows == []
    assert [bool(repeats.new({"train/loss": 0.0}, step)) for step in (3, 4)] == [False, True]


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_records_its_system_metrics(rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, True)
    monkeypatch.setattr(wandb_logger, "is_main_process", lambda: rank == 0)
    monkeypatch.setattr(wandb_logger, "broadcast", lambda word: word or "of the first")
    monkeypatch.setenv("RANK", str(rank))
    run: Any = start_run(tmp_path, DESCRIBED, mode="auto", record=Record(), all_processes=True)[0]
    settings = client.asked[0]["settings"]
    assert (client.modes, settings.x_label) == (["shared"], f"process {rank}")
    assert (settings.x_primary, settings.x_update_finish_state) == (rank == 0, rank == 0)
    assert rank == 0 or run.id == "of the first"
    assert (tmp_path / "trackers.json").exists() == (rank == 0)


def test_by_default_only_the_main_process_has_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, True)
    monkeypatch.setattr(wandb_logger, "is_main_process", lambda: False)
    assert start_run(tmp_path, DESCRIBED, mode="auto", record=Record())[0] is None
    assert client.asked == []


def test_processes_share_a_run_only_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(monkeypatch, False)
    with pytest.raises(InputError, match="all_processes=true needs W&B online"):
        start_run(tmp_path, DESCRIBED, mode="offline", record=Record(), all_processes=True)
    assert start_run(tmp_path, DESCRIBED, mode="auto", record=Record(), all_processes=True)[0] is not None
    assert client.modes == ["offline"]
    assert "all_processes=true has no effect offline: only the main process is recorded" in caplog.text


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGKILL, "wandb failed (Conn"), (signal.SIGSTOP, "wandb did not record everything within 3 s")],
)
def test_a_killed_or_frozen_wandb_process_costs_only_its_records(
    number: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_logger.ResumableWandbLogger, "timeout_s", 3.0)
    monkeypatch.setattr(wandb_logger, "RELEASE_S", 3.0)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    loggers = build_loggers({"wandb": WANDB}, tmp_path, "name")
    started = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    names = [process.name() for process in started]
    if "wandb-core" not in names:  # an earlier test's process serves this one, too
        started = [process for process in psutil.Process().children(recursive=True) if "wandb" in process.name()]
    loggers[1].log_metrics({"train/loss": 1.0}, step=1)
    loggers[1].wait()  # type: ignore[attr-defined]
    for process in started:
        os.kill(process.pid, number)
    psutil.wait_procs(started, timeout=10 if number == signal.SIGKILL else 0)
    for step in range(2, 1000):
        loggers[1].log_metrics({"train/loss": 1.0}, step=step)
    close_loggers(loggers, status="finished")
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("arclight")]
    assert len(messages) == 1
    assert messages[0].startswith(message)
    assert "it records nothing from here on; the run continues" in messages[0]
    monkeypatch.undo()
    again = build_loggers({"wandb": WANDB}, tmp_path, "name")  # the next run in this process gets a new W&B process
    assert len(again) == 2
    close_loggers(again, status="finished")
    assert not again[1].is_broken  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # run_directory.HARMLESS, as in a run
@pytest.mark.parametrize("content", [b"", b":W&B\xee\xbe\x00"], ids=["nothing", "its first bytes"])
def test_a_resumed_offline_run_has_all_its_rows(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """W&B buffers: the file of a run killed in its first seconds has no row."""
    killed = tmp_path / "wandb" / "offline-run-20260131_120000-known"
    killed.mkdir(parents=True)
    (killed / "run-known.wandb").write_bytes(content)
    (tmp_path / "trackers.json").write_text('{"wandb": "known"}')
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n5,0.5,\n10,0.4,\n11,,0.3\n")
    loggers = build_loggers({"wandb": WANDB}, tmp_path, "name", record=Record.read(tmp_path, 12))
    loggers[1].log_metrics({"train/loss": 0.2}, step=15)
    close_loggers(loggers, status="interrupted")
    (folder,) = (path for path in tmp_path.glob("wandb/offline-run-*") if path != killed)
    found = records(folder)
    assert [row["trainer/global_step"] for row in history(found)] == [5, 10, 11, 15]
    assert [ended["exit_code"] for ended in contents(found, "exit")] == [1]
    assert "did not write the whole run" not in caplog.text


@pytest.mark.parametrize("content", [None, b"", b":W&B\xee\xbe\x00"], ids=["no file", "nothing", "its first bytes"])
def test_a_missing_end_is_logged(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_logger, "WRITE_S", 0.0)
    path = tmp_path / "run.wandb"
    if content is not None:
        path.write_bytes(content)
    warn_if_incomplete(path)
    assert f"W&B did not write the whole run to {path} (" in caplog.text
    assert "MB free there" in caplog.text


def test_a_second_run_in_another_working_directory_has_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's process is that of the first run: it would resolve a relative path in the first directory."""
    client = Client(monkeypatch, False)
    for name in ("one", "two"):
        (tmp_path / name / "outputs").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        start_run(Path("outputs"), DESCRIBED, mode="offline", record=Record())
    assert [given["dir"] for given in client.asked] == [tmp_path / "one" / "outputs", tmp_path / "two" / "outputs"]


def test_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logger = object.__new__(wandb_logger.ResumableWandbLogger)
    logger._save_dir = "run"
    for offline, location in ((True, "wandb leet run/wandb"), (False, "https://wandb.ai/x/y/runs/1")):
        logger._experiment = SimpleNamespace(offline=offline, url="https://wandb.ai/x/y/runs/1")
        assert logger.location() == location
