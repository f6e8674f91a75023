"""The clock of the speed records counts what they count."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import arclight
from benchmarks import records
from benchmarks.records import CLOCK, RecordClock, read_clock
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES


def test_validation_is_not_counted_and_the_parts_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(records, "now", lambda: float(next(ticks)))
    clock = RecordClock()
    trainer: Any = type("Trainer", (), {"is_global_zero": True, "default_root_dir": str(tmp_path)})()
    module: Any = None
    clock.setup(trainer, module, "fit")
    clock.on_fit_start(trainer, module)  # 1 tick
    clock.on_train_start(trainer, module)
    clock.on_validation_start(trainer, module)  # 1
    next(ticks)  # validation
    clock.on_validation_end(trainer, module)
    clock.on_train_end(trainer, module)  # 1
    clock.on_fit_end(trainer, module)  # 1
    clock.on_test_start(trainer, module)
    clock.on_test_end(trainer, module)  # 1
    seconds = read_clock(tmp_path)
    assert seconds == {
        **{"setup_s": 1, "train_s": 2, "test_s": 1, "closing_s": 1},
        **{"record_s": 4, "with_closing_s": 5},
    }


def test_a_run_writes_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = arclight.run([*TINY_IMAGES, "callbacks=none", "logger=none", CLOCK, "trainer.max_epochs=1"])
    seconds = read_clock(run.folder)
    assert all(value > 0 for value in seconds.values())
    assert seconds["with_closing_s"] < run.results["time/total_s"]
