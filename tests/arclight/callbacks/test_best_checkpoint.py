"""Checkpoints of the best and the last epoch, and the callbacks of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from arclight.callbacks.best_checkpoint import EpochScores, best_checkpoint, best_checkpoints, build_callbacks
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.errors import InputError
from arclight.interfaces import Monitor

ACCURACY = Monitor("val/accuracy", "max")
EARLY = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 2}


class Scripted(LightningModule):
    """Logs the given accuracy in each epoch; its one weight counts the steps."""

    def __init__(self, accuracies: list[float]) -> None:
        super().__init__()
        self.accuracies = accuracies
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.weight * 1.0

    def validation_step(self, batch: torch.Tensor) -> None:
        self.log("val/accuracy", self.accuracies[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Ones:
    """Two batches of three samples."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        for _ in range(2):
            yield torch.zeros(3, 1)


def fit(tmp_path: Path, accuracies: list[float], *callbacks: Any, **settings: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=len(accuracies),
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"log_every_n_steps": 1, "logger": False, **settings},
    )
    trainer.fit(Scripted(accuracies), Ones(), Ones())
    return trainer


def test_best_is_the_best_and_last_is_the_last(tmp_path: Path) -> None:
    epochs = EpochScores(ACCURACY)
    fit(tmp_path, [0.3, 0.7, 0.5, 0.7], best_checkpoint(tmp_path, ACCURACY), LastCheckpoint(tmp_path), epochs)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 4  # that many are done
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert epochs.best == pytest.approx({"val/accuracy": 0.7})


def test_several_best_checkpoints_are_kept_beside_the_best(tmp_path: Path) -> None:
    callbacks = best_checkpoints(tmp_path, ACCURACY, 2)
    fit(tmp_path, [0.3, 0.7, 0.5, 0.4], *callbacks, LastCheckpoint(tmp_path))
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1
    names = {path.name for path in tmp_path.glob("best*.ckpt")}
    assert names == {"best.ckpt", "best-epoch_001-step_4.ckpt", "best-epoch_002-step_6.ckpt"}
    every_one = best_checkpoints(tmp_path / "all", ACCURACY, -1)
    fit(tmp_path, [0.3, 0.7, 0.5], *every_one)
    assert len(list((tmp_path / "all").glob("*.ckpt"))) == 4


def test_several_best_checkpoints_need_a_metric(tmp_path: Path) -> None:
    assert best_checkpoints(tmp_path, None, 1) == []
    with pytest.raises(
        InputError, match=r"checkpoint\.save_top_k=3: there is no metric to choose the best by; set monitor=NAME"
    ):
        best_checkpoints(tmp_path, None, 3)


def test_less_is_better_with_mode_min() -> None:
    epochs = EpochScores(Monitor("val/loss", "min"))
    assert epochs.best == {}
    epochs._by_epoch = {0: {"val/loss": 2.0}, 1: {"val/loss": 1.0}}
    assert epochs.best == {"val/loss": 1.0}


def test_early_stopping_monitors_the_metric_of_the_module(tmp_path: Path) -> None:
    (callback,) = build_callbacks({"early_stopping": EARLY}, ACCURACY)
    assert isinstance(callback, EarlyStopping)
    assert (callback.monitor, callback.mode) == ("val/accuracy", "max")
    trainer = fit(tmp_path, [0.5, 0.4, 0.4, 0.9], callback, enable_checkpointing=False)
    assert trainer.current_epoch == 3


def test_a_run_may_end_before_its_first_validation(tmp_path: Path) -> None:
    (callback,) = build_callbacks({"early_stopping": EARLY}, ACCURACY)
    trainer = fit(tmp_path, [0.5], callback, enable_checkpointing=False, max_steps=1)
    assert trainer.global_step == 1


def test_the_config_may_name_another_metric() -> None:
    (callback,) = build_callbacks({"early_stopping": {**EARLY, "monitor": "val/loss", "mode": "min"}}, ACCURACY)
    assert (callback.monitor, callback.mode) == ("val/loss", "min")


def test_a_callback_without_target_is_an_error() -> None:
    with pytest.raises(InputError, match=r"callbacks.early_stopping=\{'patience': 3\} must have a _target_"):
        build_callbacks({"early_stopping": {"patience": 3}}, ACCURACY)
