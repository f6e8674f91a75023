"""Unfreeze: parameters that are trained from a later epoch on."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from arclight.callbacks.exact_resume import epochs_done
from arclight.errors import InputError
from arclight.optim.freezing import check_some_are_trained, matching_parameters


class Unfreeze(Callback):
    """Freezes some of the net's parameters until an epoch begins.

    The optimizer has them from the start and skips them while they have no gradient, so a run that is resumed in any epoch has
    the same groups and states. The statistics of frozen batch norms follow the data.

    Args:
        epoch: the first in which they are trained, counted from 0.
        patterns: of names of parameters, see `matching_parameters`; of the module's `net`, else of the module.

    Raises:
        InputError: when `epoch` is negative, a pattern matches nothing, or weights are sharded.
    """

    leaves_unused_parameters = True  # ddp must expect parameters without a gradient

    def __init__(self, epoch: int, patterns: Sequence[str]) -> None:
        if epoch < 0:
            raise InputError(f"callbacks.unfreeze.epoch={epoch} must be 0 or more", key="callbacks.unfreeze.epoch")
        self.epoch = epoch
        self.patterns = tuple(patterns)
        self._parameters: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise InputError(
                "callbacks.unfreeze: sharded weights cannot be frozen for some epochs; use strategy=ddp", key="strategy"
            )
        net = getattr(pl_module, "net", pl_module)
        found = matching_parameters(net, self.patterns, "callbacks.unfreeze.patterns")
        check_some_are_trained(net, found if self.epoch else {}, "callbacks.unfreeze.patterns")
        self._parameters = list(found.values())
        self._set(requires_grad=True)  # the optimizer and ddp get all parameters that require gradients

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set(requires_grad=epochs_done(trainer) >= self.epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set(requires_grad=trainer.current_epoch >= self.epoch)

    def _set(self, *, requires_grad: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad = requires_grad
