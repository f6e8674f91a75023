"""An MLflow server that is gone, disappears or never answers costs only its records."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from arclight.loggers import mlflow
from arclight.loggers.factory import build_loggers, close_loggers
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.mlflow import RETRIES, TIMEOUT, client_limits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
pytest.importorskip("mlflow.tracking")


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def settings(port: int) -> dict[str, dict[str, str]]:
    return {"mlflow": {"_target_": "arclight.loggers.factory.mlflow", "uri": f"http://127.0.0.1:{port}"}}


def test_a_missing_server_is_logged_and_left_out(port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loggers = build_loggers(settings(port), tmp_path, "name")
    assert [logger.logger_name for logger in loggers if isinstance(logger, FaultTolerantLogger)] == ["csv"]
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("arclight"))
    assert message.startswith("mlflow cannot be started (")
    assert "it records nothing; the run continues" in message


def test_a_silent_server_is_left_out_after_a_timeout(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mlflow.AT_START, TIMEOUT, "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        loggers = build_loggers(settings(silent.getsockname()[1]), tmp_path, "name")
    assert len(loggers) == 1
    assert "mlflow cannot be started (" in caplog.text


def test_a_server_that_disappears_costs_only_its_records(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "start_run", lambda run_dir, **described: ("abc", settings(port)["mlflow"]["uri"]))
    monkeypatch.setattr(mlflow, "recorded_metrics", lambda client, run_id: ())
    monkeypatch.setattr(mlflow.ResumableMLFlowLogger, "experiment", property(lambda logger: logger._mlflow_client))
    monkeypatch.setenv(TIMEOUT, "5")  # as the user may; ends with the test
    monkeypatch.setenv(RETRIES, "0")
    loggers = build_loggers(settings(port), tmp_path, "name")
    for step in range(500):
        loggers[1].log_metrics({"train/loss": 1.0}, step=step)
    close_loggers(loggers, status="finished")
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("arclight")]
    assert len(messages) == 1
    assert messages[0].startswith("mlflow failed (MlflowException: ")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        *(("val/a b-c_1.5", "val/a b-c_1.5"), ("f1/N/A", "f1/N/A"), ("f1/C++", "f1/C__"), ("f1/猫", "f1/猫"), ("a:b", "a_b")),
        *(("f1/", "f1/_"), ("f1/..", "f1/__"), ("//a", "_/_/a"), ("", "_"), ("x" * 999, "x" * 240)),
    ],
)
def test_names_that_mlflow_accepts(name: str, accepted: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert mlflow.accepted_name(name) == accepted
    _validate_metric_name(accepted)


def test_client_limits_do_not_override_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "77")
    with client_limits({TIMEOUT: "1", "ARCLIGHT_TEST_LIMIT": "2"}):
        assert (os.environ[TIMEOUT], os.environ["ARCLIGHT_TEST_LIMIT"]) == ("77", "2")
    assert "ARCLIGHT_TEST_LIMIT" not in os.environ
    assert os.environ[TIMEOUT] == "77"


UI = "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"


@pytest.mark.parametrize(
    ("store", "packages", "location"),
    [
        ("http://host:5000/", ["mlflow-skinny"], "http://host:5000/#/experiments/7/runs/ab"),
        ("sqlite:///{cwd}/outputs/mlflow.db", ["mlflow-skinny", "mlflow"], UI),
        ("sqlite:///{cwd}/outputs/mlflow.db", ["mlflow-skinny"], f"pip install mlflow && {UI}"),
    ],
)
def test_location(store: str, packages: list[str], location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError
        return "3.17"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.chdir(tmp_path)
    logger = object.__new__(mlflow.ResumableMLFlowLogger)
    logger._tracking_uri, logger._experiment_id, logger._run_id = store.format(cwd=tmp_path), "7", "ab"
    logger._initialized, logger._mlflow_client = True, None
    assert logger.location() == location
