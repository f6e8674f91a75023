"""Logs training loss, learning rate and speed."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from arclight.callbacks.throughput import Throughput

ADVICE = "Lower optimizer.lr, clip gradients with trainer.gradient_clip_val=1, or find the samples: +callbacks=stop_on_nan"

log = logging.getLogger(__name__)


class LossLogging(Callback):
    """Logs `train/loss`, `lr` and `train/samples_per_s` every `log_every_n_steps` optimizer steps.

    The loss is the mean since the last time, over all processes; a resumed run continues the sum in the checkpoint. It is added
    up on the device and read only when it is logged, so that no step waits for the device.
    """

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self.throughput = throughput
        self.last_loss: float | None = None  # as it was last logged
        self._not_finite_since: int | None = None  # steps done when the loss was first logged as nan or infinite
        self._loss_sum: Tensor | None = None
        self._num_losses = 0
        self._device = torch.device("cpu")

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of all processes, each of which must call this."""
        own = torch.zeros(1, device=self._device) if self._loss_sum is None else self._loss_sum.reshape(1).to(self._device)
        sums = [own]
        if torch.distributed.is_initialized():
            sums = [torch.zeros_like(own) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(sums, own)
        return {"loss_sums": torch.cat(sums).cpu(), "num_losses": self._num_losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["num_losses"]:
            sums = torch.as_tensor(state_dict["loss_sums"])
            group = torch.distributed
            rank, size = (group.get_rank(), group.get_world_size()) if group.is_initialized() else (0, 1)
            # with another number of processes, all resume from the mean
            self._loss_sum = sums[rank] if len(sums) == size else sums.mean()
            self._num_losses = state_dict["num_losses"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(outputs, dict) and isinstance(outputs.get("loss"), Tensor):  # manual optimization may return none
            loss = outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning divided it to add gradients up
            self._loss_sum = loss if self._loss_sum is None else self._loss_sum + loss
            self._num_losses += 1
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set outside __init__
        steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if steps and every and trainer.global_step % every == 0:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_losses:
            self._log(trainer)

    @property
    def divergence(self) -> str | None:
        """What is wrong with the loss that was logged last; None where it is a finite number."""
        if self.last_loss is None or math.isfinite(self.last_loss):
            return None
        return f"train/loss is {self.last_loss} from step {self._not_finite_since} on"

    def _warn_unless_finite(self, loss: float, step: int) -> None:
        if math.isfinite(loss):
            self._not_finite_since = None
        elif self._not_finite_since is None:
            self._not_finite_since = step
            log.warning("%s. %s", self.divergence, ADVICE)

    def _log(self, trainer: Trainer) -> None:
        metrics: dict[str, float] = {}
        if self._loss_sum is not None:
            # processes hold equal parts of each batch, so the mean of their means is that of the batch
            mean = (self._loss_sum / self._num_losses).to(trainer.strategy.root_device)  # a restored sum is on the CPU
            self.last_loss = metrics["train/loss"] = float(trainer.strategy.reduce(mean, reduce_op="mean"))
            self._warn_unless_finite(self.last_loss, trainer.global_step)
        metrics["train/samples_per_s"] = self.throughput.take_recent() * trainer.world_size
        if trainer.optimizers:
            metrics["lr"] = trainer.optimizers[0].param_groups[-1]["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.save()
        self._loss_sum, self._num_losses = None, 0
