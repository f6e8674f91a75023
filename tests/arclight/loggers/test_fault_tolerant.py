from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from arclight.loggers import background
from arclight.loggers.fault_tolerant import FaultTolerantLogger


class Counting(Logger):
    """Raises from its `last`-th metrics on."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.rows: list[Mapping[str, float]] = []
        self.calls = 0

    name = version = "x"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.calls += 1
        if self.calls >= self.last:
            raise ConnectionResetError("peer\nis gone")
        self.rows.append({**metrics, "step": step or 0})

    def log_hyperparams(self, params: Any) -> None:
        self.rows.append(params)

    def own(self) -> str:
        return "own"


def test_what_is_asked_goes_on_to_the_logger(tmp_path: Path) -> None:
    inner = Counting(9)
    logger = FaultTolerantLogger(inner, "counting", tmp_path)
    logger.log_metrics({"a": 1.0}, step=2)
    logger.log_hyperparams({"lr": 1})
    assert inner.rows == [{"a": 1.0, "step": 2}, {"lr": 1}]
    assert (logger.name, logger.version, logger.own(), logger.is_broken) == ("x", "x", "own", False)
    with pytest.raises(AttributeError):
        _ = logger.not_there


def test_the_first_error_is_told_and_nothing_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner = Counting(2)
    logger = FaultTolerantLogger(inner, "counting", tmp_path)
    for step in range(5):
        logger.log_metrics({"a": 1.0}, step=step)
    logger.log_hyperparams({})
    logger.save()
    logger.finalize("success")
    logger.experiment.anything(1)
    assert (inner.calls, len(inner.rows)) == (2, 1)
    told = "counting has failed (ConnectionResetError: peer): it records nothing from here on; the run goes on"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_ctrl_c_is_no_error_of_the_tracker(tmp_path: Path) -> None:
    logger = FaultTolerantLogger(Counting(1), "counting", tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logger.attempt(interrupt)
    assert not logger.is_broken


class Hanging(Counting):
    """Takes the first metrics and never comes back, as a server that accepts and does not answer."""

    patience_s = 0.02

    def __init__(self) -> None:
        super().__init__(99)
        self.begun, self.released = threading.Event(), threading.Event()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.begun.set()
        self.released.wait(30)


def test_a_tracker_that_never_answers_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner = Hanging()
    logger = FaultTolerantLogger(inner, "hanging", tmp_path, in_background=True)
    for step in range(1000):  # would take hours
        logger.log_metrics({"a": 1.0}, step=step)
    assert inner.begun.wait(10)
    logger.finalize("success")
    logger.close()
    assert logger.is_broken
    logger.close()
    told = "hanging has not taken everything within 0.02 s, the rest is lost: it records nothing from here on; the run goes on"
    assert [record.getMessage() for record in caplog.records] == [told]
    inner.released.set()


def test_more_than_can_be_kept_for_it_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MOST_WAITING", 3)
    inner = Hanging()
    logger = FaultTolerantLogger(inner, "hanging", tmp_path, in_background=True)
    for step in range(20):
        logger.log_metrics({"a": 1.0}, step=step)
    assert "hanging does not answer, and more waits for it than can be kept: it records nothing" in caplog.text
    assert len(caplog.records) == 1
    inner.released.set()


def test_what_is_sent_in_the_background_arrives_whole_and_in_order(tmp_path: Path) -> None:
    inner = Counting(999)
    logger = FaultTolerantLogger(inner, "counting", tmp_path, in_background=True)
    metrics = {"a": 0.0}
    for step in range(100):
        metrics["a"] = float(step)  # who logs may use its dict again
        logger.log_metrics(metrics, step=step)
    logger.close()
    assert inner.rows == [{"a": float(step), "step": step} for step in range(100)]


def test_only_the_first_process_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arclight.loggers.fault_tolerant.is_main_process", lambda: False)
    inner = Counting(1)
    FaultTolerantLogger(inner, "counting", tmp_path, in_background=True).log_metrics({"a": 1.0})
    FaultTolerantLogger(inner, "counting", tmp_path).log_metrics({"a": 1.0})
    assert inner.calls == 0
