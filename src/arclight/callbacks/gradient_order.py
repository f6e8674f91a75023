"""Under ddp, the gradients of every step are added up in the same order, from the first step after a start on."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from arclight.modules.supervised import SupervisedModule


class GradientOrder(Callback):
    """Makes ddp arrange its buckets before the first step, not after it.

    ddp begins with gradients in the order of the parameters and, after the first backward pass, puts them in the order in which
    they became ready. Where three or more processes add numbers, the place of a number decides the order of its sum, and so its
    last bits: the first step after a start would differ from the same step of a run that never stopped. A backward pass whose
    gradients are thrown away comes first, in every run. With two processes a sum has one order.

    Source: torch.nn.parallel.DistributedDataParallel, "_rebuild_buckets" of its reducer, torch 2.13.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size < 3 or not isinstance(trainer.strategy, DDPStrategy):
            return
        assert isinstance(pl_module, SupervisedModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = next(iter(data.train_dataloader()))  # of a loader of its own: the run's keeps its place
        before = [buffer.clone() for buffer in pl_module.buffers()]
        loss = trainer.strategy.training_step(batch)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        for optimizer in trainer.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(pl_module.buffers(), before, strict=True):
                buffer.copy_(value)  # norms have seen the batch
