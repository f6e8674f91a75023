"""MLflow's server that is gone or never answers, and a run that its store does not know; the rest is in test_trackers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from arclight.loggers import mlflow
from arclight.loggers.factory import build_loggers, close_loggers
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.mlflow import RETRIES, TIMEOUT, patience

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
pytest.importorskip("mlflow.tracking")


@pytest.fixture
def port() -> Iterator[int]:
    """Of this machine, on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def settings(port: int) -> dict[str, dict[str, str]]:
    return {"mlflow": {"_target_": "arclight.loggers.factory.mlflow", "uri": f"http://127.0.0.1:{port}"}}


def test_a_server_that_is_gone_is_told_and_left_out(port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loggers = build_loggers(settings(port), tmp_path, "name")
    assert [logger.logger_name for logger in loggers if isinstance(logger, FaultTolerantLogger)] == ["csv"]
    (told,) = (record.getMessage() for record in caplog.records if record.name.startswith("arclight"))
    assert told.startswith("mlflow cannot be started (")
    assert "it records nothing; the run goes on" in told


def test_a_server_that_never_answers_is_left_out_after_a_while(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mlflow.AT_START, TIMEOUT, "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        loggers = build_loggers(settings(silent.getsockname()[1]), tmp_path, "name")
    assert len(loggers) == 1
    assert "mlflow cannot be started (" in caplog.text


def test_a_server_that_goes_during_the_run_costs_its_records_only(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "start_run", lambda folder, **described: ("abc", settings(port)["mlflow"]["uri"]))
    monkeypatch.setattr(mlflow.ResumableMLFlowLogger, "experiment", property(lambda logger: logger._mlflow_client))
    monkeypatch.setenv(TIMEOUT, "5")  # as the user may; ends with the test
    monkeypatch.setenv(RETRIES, "0")
    loggers = build_loggers(settings(port), tmp_path, "name")
    for step in range(500):
        loggers[1].log_metrics({"train/loss": 1.0}, step=step)
    close_loggers(loggers, status="finished")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("arclight")]
    assert len(told) == 1
    assert told[0].startswith("mlflow has failed (MlflowException: ")


def test_limits_hold_inside_unless_the_user_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "77")
    with patience({TIMEOUT: "1", "ARCLIGHT_TEST_LIMIT": "2"}):
        assert (os.environ[TIMEOUT], os.environ["ARCLIGHT_TEST_LIMIT"]) == ("77", "2")
    assert "ARCLIGHT_TEST_LIMIT" not in os.environ
    assert os.environ[TIMEOUT] == "77"
