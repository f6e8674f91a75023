"""Loggers record a run without an account, a network or a prompt, and never stop it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

import arclight
from arclight.errors import InputError
from arclight.loggers.factory import build_loggers, close_loggers, log_metadata
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.record import Record
from arclight.loggers.wandb import inspect_file
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

WANDB = {"_target_": "arclight.loggers.factory.wandb", "mode": "offline"}
SCORES = {"confusion": {"labels": ["a", "b"], "counts": [[3, 1], [0, 2]]}}


def records(folder: Path) -> list[Any]:
    """Returns the records of an offline W&B run."""
    (path,) = folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def contents(found: list[Any], kind: str) -> list[Any]:
    return [record[kind] for record in found if record["type"] == kind]


def history(found: list[Any]) -> list[dict[str, Any]]:
    return [row["item"] for row in contents(found, "history")]


def write_run_dir(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "overrides.txt").write_text("experiment=demo\noptimizer.lr=0.5\nseed=3\nlogger=csv\n")
    git = {"commit": "21bbb85", "diff": "+password"}
    (folder / "environment.json").write_text(json.dumps({"git": git, "hardware": {"cores": 2}}))
    (folder / "results.json").write_text(json.dumps({"status": "finished", "test/accuracy": 0.75, "test/f1/cat & 'co'": 0.125}))
    (folder / "scores.json").write_text(json.dumps(SCORES))
    (folder / "report.html").write_text("<p>")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_text("weights")


def log_to(loggers: Sequence[Logger], metrics: dict[str, float], step: int) -> None:
    """Logs as Lightning does."""
    for logger in loggers:
        logger.log_metrics(metrics, step=step)
        logger.save()


def test_no_logger(tmp_path: Path) -> None:
    assert build_loggers({}, tmp_path, "name") == []


@pytest.mark.parametrize("key", ["csv", "tensorboard"])
def test_metrics_csv_is_written_along_with_any_other(key: str, tmp_path: Path) -> None:
    loggers = build_loggers({key: {"_target_": f"arclight.loggers.factory.{key}"}}, tmp_path, "name")
    for logger in loggers:
        logger.log_metrics({"val/loss": 0.5}, step=3)
    close_loggers(loggers, status="finished")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,val/loss", "3,0.5"]
    assert bool(list(tmp_path.glob("tensorboard/events*"))) == (key == "tensorboard")


def test_an_unwritable_csv_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").write_text("a file instead of a directory")
    assert build_loggers({"csv": {}}, tmp_path / "run", "name") == []
    assert "csv cannot be started ([Errno 17] File exists" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (7, "logger.wandb=7 must hold a _target_ and its arguments; logger=none logs nothing"),
        ({**WANDB, "mode": "maybe"}, "logger.wandb.mode='maybe' must be auto or online or offline"),
        ({**WANDB, "artifacts": ["reprot"]}, "logger.wandb.artifacts="),
        ({**WANDB, "projekt": "x"}, r"Did you mean 'project'\?"),
    ],
)
def test_config_errors_are_raised(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        build_loggers({"wandb": settings}, tmp_path, "name")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # of MLflow
def test_all_loggers_record_a_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    for limit in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(limit, "5")  # the logger sets them for the whole process
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    run = arclight.run([*TINY_IMAGES, "logger=all", "trainer.max_epochs=1", "precision=fp32"])
    assert run.results["status"] == "finished"
    assert list(run.folder.glob("tensorboard/events*"))
    assert "W&B: offline; `wandb leet" in (run.folder / "train.log").read_text()
    assert (run.folder / "metrics.csv").is_file()
    (offline,) = run.folder.glob("wandb/offline-run-*")
    found = records(offline)
    assert [ended["exit_code"] for ended in contents(found, "exit")] == [0]
    assert "did not write the whole run" not in (run.folder / "train.log").read_text()
    (path,) = offline.glob("*.wandb")
    summary = inspect_file(path)["summary"]
    assert summary["test/accuracy"] == pytest.approx(run.results["test/accuracy"])
    assert summary["status"] == "finished"
    assert max(row["trainer/global_step"] for row in history(found)) == run.results["steps"] == 4
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "wandb" in line.lower() or "W&B" in line)
    place = f"{run.folder}/wandb"
    assert line.endswith(f"View this run in the terminal: wandb leet {place}; upload it: wandb sync {place}/offline-run-*")
    (recorded,) = tracking.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").search_runs(["1"])
    assert recorded.data.metrics["test/accuracy"] == pytest.approx(run.results["test/accuracy"])


def test_a_resumed_wandb_run_keeps_its_id_and_steps(tmp_path: Path) -> None:
    folder = tmp_path / "multirun" / "2026-01-31" / "0-synthetic_images-cnn"
    write_run_dir(folder)
    for status, steps, after_step in (("interrupted", (1, 2, 3), 0), ("finished", (3, 4, 5), 2)):
        loggers = build_loggers(
            {"wandb": {**WANDB, "artifacts": ["report", "checkpoint", "confusion", "classes"]}},
            folder,
            "synthetic_images-cnn",
            tags=["baseline"],
            record=Record.read(folder, after_step),
        )
        log_metadata(loggers, {"optimizer": {"lr": 0.5}, "parameters": 7, "api_key": "Ab1", "hardware": {"compile": "auto"}})
        for step in steps:
            log_to(loggers, {"train/loss": 1 / step}, step)
            log_to(loggers, {"val/loss": (float("nan"), float("inf"))[step % 2]}, step - 1)
        close_loggers(loggers, status=status)
        assert not loggers[1].is_broken  # type: ignore[attr-defined]
    (run_id,) = {path.name.split("-")[3] for path in folder.glob("wandb/offline-run-*")}
    both = [records(path) for path in sorted(folder.glob("wandb/offline-run-*"))]
    assert json.loads((folder / "trackers.json").read_text()) == {"wandb": run_id}
    started = [run for found in both for run in contents(found, "run")]
    assert {(run["run_id"], run["display_name"], run["run_group"]) for run in started} == {
        (run_id, "synthetic_images-cnn lr=0.5 seed=3", "multirun 2026-01-31")
    }
    assert {tag for run in started for tag in run["tags"]} == {"baseline"}
    rows = [row for found in both for row in history(found)]
    assert [row["trainer/global_step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5]
    own = [row["_step"] for row in rows]
    assert own == sorted(set(own))
    assert [ended["exit_code"] for found in both for ended in contents(found, "exit")] == [1, 0]
    config: dict[str, Any] = {}
    for updated in contents(both[0], "config"):
        config |= updated["update"]
    assert config["git"] == {"commit": "21bbb85", "has_uncommitted_changes": True}
    assert (config["parameters"], config["hardware"], config["machine"]) == (7, {"compile": "auto"}, {"cores": 2})
    assert "optimizer.lr=0.5" in config["overrides"]
    assert "Ab1" not in str(both)
    assert {artifact["type"] for artifact in contents(both[0], "artifact")} >= {"report", "model"}


def test_a_logger_that_cannot_be_started_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb as client

    def refuse(**settings: Any) -> Any:
        raise client.errors.CommError("no server\nand more")

    monkeypatch.setattr(client, "init", refuse)
    loggers = build_loggers({"wandb": WANDB}, tmp_path, "name")
    assert [logger.logger_name for logger in loggers if isinstance(logger, FaultTolerantLogger)] == ["csv"]
    assert "wandb cannot be started (no server): it records nothing; the run continues" in caplog.text


def test_other_processes_close_their_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("csv", "fault_tolerant", "wandb", "run_ids"):
        monkeypatch.setattr(f"arclight.loggers.{module}.is_main_process", lambda: False)
    loggers = build_loggers({"wandb": WANDB}, tmp_path, "name")
    loggers.append(FaultTolerantLogger(DummyLogger(), "mlflow", tmp_path))  # type: ignore[arg-type]
    loggers[1].log_metrics({"a": 1.0}, step=1)
    close_loggers(loggers, status="finished")
    assert not any(logger.is_broken for logger in loggers)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


OWN = """
from lightning.pytorch.loggers.logger import DummyLogger

class OwnLogger(DummyLogger):
    def __init__(self, run_dir, *, note="", max_rows=None):
        super().__init__()
        self.file, self.max_rows, self.rows = run_dir / "own.txt", max_rows, [note]

    def log_metrics(self, metrics, step=None):
        if self.max_rows is not None and len(self.rows) > self.max_rows:
            raise ConnectionError("the server is gone")
        self.rows.append(f"{step} {sorted(metrics)}")
        self.file.write_text("\\n".join(self.rows))

class NeedsPackage(OwnLogger):
    def __init__(self):
        import a_package_that_is_missing
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package beside the checkout that holds Lightning loggers."""
    place = tmp_path / "beside"
    place.mkdir()
    (place / "own_loggers.py").write_text(OWN)
    monkeypatch.syspath_prepend(place)
    return "own_loggers"


def test_a_logger_of_any_package_is_named_in_yaml(own_package: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = {
        "own": {"_target_": f"{own_package}.OwnLogger", "note": "first", "max_rows": 2},
        "curves": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "version": "a"},
    }
    loggers = build_loggers(chosen, tmp_path, "name")
    for step in range(4):
        log_to(loggers, {"train/loss": 0.5}, step)
    close_loggers(loggers, status="finished")
    assert (tmp_path / "own.txt").read_text().splitlines() == ["first", "0 ['train/loss']", "1 ['train/loss']"]
    assert caplog.text.count("own failed (ConnectionError: the server is gone)") == 1
    assert list((tmp_path / "name" / "a").glob("events*"))
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5


def test_a_package_that_a_logger_needs_is_missing(own_package: str, tmp_path: Path) -> None:
    message = (
        "logger.own needs a package that is not installed: No module named 'a_package_that_is_missing'. Install it, or use"
    )
    with pytest.raises(InputError, match=message):
        build_loggers({"own": {"_target_": f"{own_package}.NeedsPackage"}}, tmp_path, "name")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.with_report
def test_a_resumed_mlflow_run_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for limit in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(limit, "5")  # the logger sets them for the whole process
    folder = tmp_path / "outputs" / "synthetic_images-cnn" / "2026"
    write_run_dir(folder)
    settings = {"_target_": "arclight.loggers.factory.mlflow", "artifacts": ["report", "checkpoint", "confusion"]}
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    statuses = []
    for status, steps, after_step in (("interrupted", (1, 2, 3), 0), ("finished", (3, 4, 5), 2)):
        tags, record = ["baseline", "a:b"], Record.read(folder, after_step, 2 * after_step)
        loggers = build_loggers({"mlflow": settings}, folder, "synthetic_images-cnn", tags=tags, record=record)
        log_metadata(loggers, {"optimizer": {"lr": 0.5 + after_step}, "parameters": 7, "labels": {"cat & 'co'": 1}})
        for step in steps:
            log_to(loggers, {"train/loss": 1 / step, "val/loss": (float("nan"), float("inf"))[step % 2]}, step)
            log_to(loggers, {"val/cat & 'co'": 0.5, "val/cat _ [co]": 0.25, "val/猫": 0.75, "val/": 1.0}, step)
        close_loggers(loggers, status=status)
        run_id = json.loads((folder / "trackers.json").read_text())["mlflow"]
        statuses.append(client.get_run(run_id).info.status)
        assert "failed (" not in caplog.text
    assert statuses == ["KILLED", "FINISHED"]
    (folder / "trackers.json").write_text('{"mlflow": "of another store"}')
    other = build_loggers({"mlflow": settings}, folder, "synthetic_images-cnn", record=Record.read(folder, 5, 10))
    close_loggers(other, status="failed")
    assert "MLflow: cannot resume run of another store (" in caplog.text
    other_id = json.loads((folder / "trackers.json").read_text())["mlflow"]
    assert client.get_run(other_id).info.status == "FAILED"
    assert [metric.step for metric in client.get_metric_history(other_id, "train/loss")] == [1, 2, 3, 4, 5]
    client.delete_run(other_id)
    experiment = client.get_experiment_by_name("arclight")
    (run,) = client.search_runs([experiment.experiment_id])
    for key in ("train/loss", "val/loss", "val/cat _ _co_", "val/cat _ _co__2", "val/猫", "val/_"):
        assert [metric.step for metric in client.get_metric_history(run_id, key)] == [1, 2, 3, 4, 5], key
    assert (run.data.metrics["val/cat _ _co_"], run.data.metrics["val/cat _ _co__2"]) == (0.5, 0.25)
    assert run.data.metrics["test/f1/cat _ _co_"] == 0.125
    assert run.data.params["labels/cat _ _co_"] == "1"
    assert run.data.params["optimizer/lr"] == "0.5"
    assert (run.data.tags["group"], run.info.run_name) == ("synthetic_images-cnn", "synthetic_images-cnn lr=0.5 seed=3")
    assert (run.data.tags["baseline"], run.data.tags["a_b"]) == ("true", "true")
    assert run.data.metrics["test/accuracy"] == 0.75
    assert {file.path for file in client.list_artifacts(run_id)} == {"report.html", "best.ckpt", "scores.json"}


def test_a_run_survives_a_failing_logger(
    own_package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    monkeypatch.chdir(tmp_path)

    def full(logger: CSVLogger) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CSVLogger, "save", full)
    own = [f"+logger.own._target_={own_package}.OwnLogger", "+logger.own.note=first"]
    with caplog.at_level(logging.WARNING):
        run = arclight.run([*TINY_IMAGES, "logger=csv", "trainer.max_epochs=1", "precision=fp32", *own])
    assert run.results["status"] == "finished"
    message = "csv failed (OSError: [Errno 28] No space left on device): it records nothing from here on; the run continues"
    assert (run.folder / "train.log").read_text().count(message) == 1
    assert (run.folder / "own.txt").read_text().startswith("first\n3 ['epoch', 'val/accuracy'")
