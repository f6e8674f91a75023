"""`Run` reads what a run has written; a missing file is an error when it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import arclight
from arclight.errors import InputError
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    try:
        yield arclight.run([*TINY_IMAGES, "trainer.max_epochs=2", "precision=fp32", "trainer.log_every_n_steps=2"])
    finally:
        os.chdir(before)


def test_everything_of_a_run_can_be_read(made: Any) -> None:
    run = arclight.load_run(made.folder)
    assert arclight.load_run("latest").folder.resolve() == made.folder.resolve()
    assert run.results == pytest.approx(made.results)
    assert run.config["trainer"]["max_epochs"] == 2
    assert "trainer.max_epochs=2" in run.overrides
    steps, losses = run.curve("train/loss")
    assert steps.tolist() == [2, 4, 6, 8]
    assert np.isfinite(losses).all()
    assert len({len(column) for column in run.metrics.values()}) == 1
    assert len(run.predictions) == 32
    wrong = [one for one in run.predictions if one.label != one.predicted]  # type: ignore[union-attr]
    assert run.misclassified(3) == sorted(wrong, key=lambda one: (-one.confidence, one.index))[:3]  # type: ignore[union-attr, operator]
    assert [mistake["index"] for mistake in run.pictured_errors[:3]] == [mistake.index for mistake in run.misclassified(3)]


def test_the_model_is_the_best_or_that_of_the_given_checkpoint(made: Any) -> None:
    run = arclight.load_run(made.folder)
    assert run.restored.path == made.folder / "checkpoints" / "best.ckpt"
    assert not run.model.training
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name]), name
    last = arclight.load_run(made.folder / "checkpoints" / "last.ckpt")
    assert (last.folder, last.restored.path.name) == (made.folder, "last.ckpt")


def test_a_metric_that_was_not_logged_is_an_error(made: Any) -> None:
    with pytest.raises(InputError, match="val/acuracy was not logged. Did you mean 'val/accuracy'?"):
        arclight.load_run(made.folder).curve("val/acuracy")


def test_missing_files_are_errors_when_they_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        arclight.load_run(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("a: [1")
    run = arclight.load_run(tmp_path)
    assert (run.results, run.overrides, run.pictured_errors) == ({}, (), [])
    for part, message in {
        "config": "config.yaml cannot be read: the run was stopped while writing it",
        "metrics": "metrics.csv: no such file; it is written from the first log on, unless logger=none",
        "model": "no epoch of this run has finished",
        "predictions": "a run writes predictions.jsonl at the end of its test",
    }.items():
        with pytest.raises(InputError, match=message):
            getattr(run, part)
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.")
    (tmp_path / "mistakes.json").write_text('{"mistakes": ')
    run = arclight.load_run(tmp_path)
    assert run.metrics["train/loss"].tolist() == [0.5, 0.0]
    assert run.pictured_errors == []
