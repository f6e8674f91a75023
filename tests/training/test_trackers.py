"""Trackers record a run without an account, a network or a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import arclight
from arclight.errors import InputError
from arclight.training.trackers import build_trackers, close_trackers
from tests.test_checkpoint import TINY_IMAGES


def test_nothing_chosen_is_nothing_tracked(tmp_path: Path) -> None:
    assert build_trackers({}, tmp_path, "name") == []


@pytest.mark.parametrize("key", ["csv", "tensorboard"])
def test_metrics_csv_is_written_along_with_any_other(key: str, tmp_path: Path) -> None:
    loggers = build_trackers({key: {"_target_": f"arclight.training.trackers.{key}"}}, tmp_path, "name")
    for logger in loggers:
        logger.log_metrics({"val/loss": 0.5}, step=3)
    close_trackers(loggers, failed=False)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,val/loss", "3,0.5"]
    assert bool(list(tmp_path.glob("tensorboard/events*"))) == (key == "tensorboard")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (7, "tracker.wandb=7 must hold a _target_ and its arguments; tracker=none tracks nothing"),
        ({"_target_": "arclight.training.trackers.wandb", "mode": "maybe"}, "tracker.wandb.mode='maybe' is not of type"),
        ({"_target_": "arclight.training.trackers.wandb", "projekt": "x"}, r"Did you mean 'project'\?"),
    ],
)
def test_a_mistake_is_told(settings: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        build_trackers({"wandb": settings}, tmp_path, "name")


def test_all_trackers_record_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    run = arclight.run([*TINY_IMAGES, "tracker=all", "trainer.max_epochs=1", "precision=fp32"])
    assert run.results["status"] == "finished"
    assert list(run.folder.glob("tensorboard/events*"))
    assert list(run.folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert "W&B: offline; `wandb leet" in (run.folder / "train.log").read_text()
    assert (run.folder / "metrics.csv").is_file()
