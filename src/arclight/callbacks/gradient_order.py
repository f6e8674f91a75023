"""Makes ddp add up the gradients of every step in the same order, from the first step after a start or resume."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from arclight.interfaces import loss_in, training_step_args
from arclight.modules.supervised import SupervisedModule


class GradientOrder(Callback):
    """Makes ddp arrange its buckets before the first step, not after it.

    ddp starts with gradients in the order of the parameters and, after the first backward pass, sorts them by when they became
    ready. With three or more processes the position of a number decides the order of its sum, and so its last bits: the first
    step after a start would differ from the same step of an uninterrupted run. Every run therefore begins with a backward pass
    whose gradients are discarded. With two processes a sum has one order.

    Source: torch.nn.parallel.DistributedDataParallel, "_rebuild_buckets" of its reducer, torch 2.13.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size < 3 or not isinstance(trainer.strategy, DDPStrategy):
            return
        if not isinstance(pl_module, SupervisedModule):
            return  # the step of another module may log, or count on what a loop has done before
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = trainer.strategy.batch_to_device(next(iter(data.train_dataloader())))  # the run's own loader keeps its place
        before = [buffer.clone() for buffer in pl_module.buffers()]
        loss = loss_in(trainer.strategy.training_step(*training_step_args(pl_module, batch)))
        loss.backward()
        for optimizer in trainer.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(pl_module.buffers(), before, strict=True):
                buffer.copy_(value)  # batch norms have seen the batch
