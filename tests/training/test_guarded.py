from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from arclight.training.guarded import Guarded


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
    logger = Guarded(inner, "counting", tmp_path)
    logger.log_metrics({"a": 1.0}, step=2)
    logger.log_hyperparams({"lr": 1})
    assert inner.rows == [{"a": 1.0, "step": 2}, {"lr": 1}]
    assert (logger.name, logger.version, logger.own(), logger.is_broken) == ("x", "x", "own", False)
    with pytest.raises(AttributeError):
        _ = logger.not_there


def test_the_first_error_is_told_and_nothing_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner = Counting(2)
    logger = Guarded(inner, "counting", tmp_path)
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
    logger = Guarded(Counting(1), "counting", tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logger.attempt(interrupt)
    assert not logger.is_broken
