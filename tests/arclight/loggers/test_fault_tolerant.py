"""A failing logger is reported once and ignored afterwards; a slow one is called in a thread and never blocks the run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from arclight.loggers import fault_tolerant
from arclight.loggers.factory import csv, tensorboard
from arclight.loggers.fault_tolerant import FaultTolerantLogger, locations

RUN = Path("outputs/synthetic_images-cnn/2026-01-31_12-00-00")


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


class Slow(Counting):
    is_slow = True


class Hanging(Slow):
    """Never returns from its first metrics, like a server that accepts and does not answer."""

    def __init__(self) -> None:
        super().__init__(99)
        self.started, self.released = threading.Event(), threading.Event()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.started.set()
        self.released.wait(30)


def test_calls_are_forwarded(tmp_path: Path) -> None:
    inner = Counting(9)
    logger = FaultTolerantLogger(inner, "counting", tmp_path)
    logger.log_metrics({"a": 1.0}, step=2)
    logger.log_hyperparams({"lr": 1})
    assert inner.rows == [{"a": 1.0, "step": 2}, {"lr": 1}]
    assert (logger.name, logger.version, logger.own(), logger.is_broken) == ("x", "x", "own", False)
    with pytest.raises(AttributeError):
        _ = logger.not_there


def test_experiment_is_that_of_the_wrapped_logger(tmp_path: Path) -> None:
    inner = Counting(1)
    inner.experiment = SimpleNamespace(watch="watched")  # type: ignore[attr-defined]
    assert FaultTolerantLogger(inner, "counting", tmp_path).experiment.watch == "watched"


@pytest.mark.parametrize("kind", [Counting, Slow])
def test_the_first_error_is_logged_and_no_call_follows(
    kind: type[Counting], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = kind(2)
    logger = FaultTolerantLogger(inner, "counting", tmp_path)
    for step in range(5):
        logger.log_metrics({"a": 1.0}, step=step)
    logger.log_hyperparams({})
    logger.save()
    logger.end("finished")
    logger.close()
    logger.experiment.anything(1)
    assert (inner.calls, len(inner.rows)) == (2, 1)
    message = "counting failed (ConnectionResetError: peer): it records nothing from here on; the run continues"
    assert [record.getMessage() for record in caplog.records] == [message]


def test_ctrl_c_is_not_an_error_of_the_logger(tmp_path: Path) -> None:
    logger = FaultTolerantLogger(Counting(1), "counting", tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logger.attempt(interrupt)
    assert not logger.is_broken


def test_a_logger_that_never_returns_blocks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_tolerant, "TIMEOUT_S", 0.02)
    inner = Hanging()
    logger = FaultTolerantLogger(inner, "hanging", tmp_path)
    for step in range(1000):  # would take hours
        logger.log_metrics({"a": 1.0}, step=step)
    assert inner.started.wait(10)
    logger.finalize("success")
    logger.close()
    assert logger.is_broken
    logger.close()
    message = "hanging did not record everything within 0.02 s: it records nothing from here on; the run continues"
    assert [record.getMessage() for record in caplog.records] == [message]
    inner.released.set()


def test_a_full_queue_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_tolerant, "MAX_PENDING", 3)
    inner = Hanging()
    logger = FaultTolerantLogger(inner, "hanging", tmp_path)
    for step in range(20):
        logger.log_metrics({"a": 1.0}, step=step)
    assert "hanging does not respond, 3 calls are pending: it records nothing" in caplog.text
    assert len(caplog.records) == 1
    inner.released.set()
    logger.close()


def test_a_slow_logger_gets_every_call_in_order_in_a_thread_that_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    inner = Slow(999)
    logger = FaultTolerantLogger(inner, "slow", tmp_path)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "logger slow")
    metrics = {"a": 0.0}
    for step in range(100):
        metrics["a"] = float(step)  # the caller may reuse its dict
        logger.log_metrics(metrics, step=step)
    logger.close()
    assert inner.rows == [{"a": float(step), "step": step} for step in range(100)]
    thread.join(10)
    assert threading.active_count() == before


def test_only_the_main_process_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_tolerant, "is_main_process", lambda: False)
    for inner in (Counting(1), Slow(1)):
        FaultTolerantLogger(inner, "counting", tmp_path).log_metrics({"a": 1.0})
        assert inner.calls == 0


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Elsewhere(DummyLogger):
        save_dir = "elsewhere"

    class Nameless(DummyLogger):
        save_dir = None

    class Gone(DummyLogger):
        @property
        def save_dir(self) -> str:
            raise OSError("the server is gone")

    wrapped = {"csv": csv(RUN), "tensorboard": tensorboard(RUN), "a": Elsewhere(), "b": Nameless(), "c": Gone()}
    loggers: list[Any] = [FaultTolerantLogger(logger, name, RUN) for name, logger in wrapped.items()]  # type: ignore[arg-type]
    assert locations([*loggers, Elsewhere()]) == [  # type: ignore[list-item]
        ("csv", f"{RUN}/metrics.csv"),
        ("tensorboard", "tensorboard --logdir outputs/synthetic_images-cnn"),
        ("a", "elsewhere"),
        ("b", ""),
        ("c", "failed: see train.log"),
        ("Elsewhere", "elsewhere"),
    ]
