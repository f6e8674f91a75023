"""Stochastic weight averaging of Lightning in a run that is resumed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging


def resume_averaging(trainer: Trainer, module: LightningModule) -> None:
    """Lets Lightning's SWA begin in the resumed epoch, also inside it, with the learning rates of the checkpoint.

    Lightning 2.6.6 begins it at the next epoch's start, and the scheduler that it makes changes the rates.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set outside __init__
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging) and callback._scheduler_state is not None:
            if trainer.current_epoch > callback.swa_end:  # the epoch for the statistics of batch norm
                continue
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            saved = [{key: value for key, value in group.items() if key != "params"} for group in groups]
            callback.on_train_epoch_start(trainer, module)
            for group, values in zip(groups, saved, strict=True):
                group.update(values)
