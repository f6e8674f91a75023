"""`preflight=full` tries everything a run does and leaves nothing behind."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import arclight
from arclight.config.compose import compose
from arclight.errors import InputError
from arclight.runs.dry_run import DryRun, temporary
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

FULL = ["preflight=full", "precision=fp32"]
STEPS = ["data and net", "train", "validate", "checkpoint", "test", "predict"]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")


def check_nothing_remains(tmp_path: Path) -> None:
    assert list((tmp_path / "temporary").glob("arclight-*")) == []  # torch leaves an empty folder of its own launcher there
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("overrides", [TINY_IMAGES, [*TINY_TEXT, "callbacks=weight_averaging", "data.packing=rows"]])
def test_every_step_runs(overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = arclight.run([*overrides, *FULL, "data.max_batch_per_device=8", "logger=wandb", "trainer.max_epochs=5"])
    shown = capsys.readouterr().out
    assert [name for name in STEPS if f"\n{name} " in shown] == STEPS
    assert "1 step, loss" in shown
    assert "failed" not in shown
    assert run.results == {}
    check_nothing_remains(tmp_path)


@pytest.mark.processes
def test_every_step_runs_in_several_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arclight.run([*TINY_IMAGES, *FULL, "strategy=ddp_cpu", "trainer.devices=2"])
    assert capfd.readouterr().out.count("\npredict ") == 1
    check_nothing_remains(tmp_path)


def test_a_checkpoint_that_restores_other_weights_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from arclight.runs import dry_run

    real = dry_run.restore

    def changed(path: Path) -> object:
        restored = real(path)
        with torch.no_grad():
            next(restored.module.parameters()).add_(1)
        return restored

    monkeypatch.setattr(dry_run, "restore", changed)
    with pytest.raises(AssertionError, match="the checkpoint restores other weights"):
        arclight.run([*TINY_IMAGES, *FULL, "logger=none"])
    assert "failed" in capsys.readouterr().out
    check_nothing_remains(tmp_path)


def test_config_errors_come_before_the_dry_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="optimizer.lr='x' must be a number"):
        arclight.run([*TINY_IMAGES, *FULL, "optimizer.lr=x"])
    check_nothing_remains(tmp_path)


def test_a_run_to_resume_is_not_touched() -> None:
    run_config = replace(compose([*TINY_IMAGES, *FULL]), resume="somewhere")
    with temporary(run_config) as dry_run_config:
        assert dry_run_config.resume == "none"
        assert dry_run_config.folder != run_config.folder


def test_machines_share_the_working_directory_only() -> None:
    with temporary(compose([*TINY_IMAGES, *FULL, "trainer.num_nodes=2"])) as dry_run_config:
        assert dry_run_config.folder.is_relative_to(Path.cwd())
    assert not list(Path.cwd().iterdir())


def test_a_failed_step_is_shown() -> None:
    dry_run = DryRun()
    with dry_run.step("one") as outcome:
        outcome.append("well")
    with pytest.raises(ZeroDivisionError), dry_run.step("two"):
        1 / 0  # noqa: B018
    assert [(name, what) for name, what, _ in dry_run.rows] == [("one", "well"), ("two", "failed")]
    assert dry_run.to_rich().row_count == 2
