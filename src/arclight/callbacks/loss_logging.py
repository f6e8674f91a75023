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
    up on the device and read only when it is logged, and at the end of an epoch, so that no step waits for the device.
    """

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self.throughput = throughput
        self.last_loss: float | None = None  # as it was last logged
        self._not_finite_since: int | None = None  # steps done when the loss was first logged as nan or infinite
        self.epoch_loss: float | None = None  # mean over the last epoch
        self._loss_sum: Tensor | None = None
        self._num_losses = 0
        self._epoch_sum: Tensor | None = None  # added to _loss_sum, this is the sum of the epoch
        self._num_in_epoch = 0
        self._device = torch.device("cpu")

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of all processes, each of which must call this."""
        zero = torch.zeros((), device=self._device)
        own = torch.stack([zero if each is None else each.to(self._device) for each in (self._loss_sum, self._epoch_sum)])
        sums = [own]
        if torch.distributed.is_initialized():
            sums = [torch.zeros_like(own) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(sums, own)
        loss_sums, epoch_sums = torch.stack(sums, dim=1).cpu()  # (processes,) each
        counts = {"num_losses": self._num_losses, "num_in_epoch": self._num_in_epoch}
        return {"loss_sums": loss_sums, "epoch_sums": epoch_sums, **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["num_losses"]:
            self._loss_sum, self._num_losses = _own(state_dict["loss_sums"]), state_dict["num_losses"]
        if state_dict.get("num_in_epoch"):  # version 0.1 has none
            self._epoch_sum, self._num_in_epoch = _own(state_dict["epoch_sums"]), state_dict["num_in_epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # losses of the epoch before that are not logged yet do not count in this one
        self._epoch_sum = None if self._loss_sum is None else -self._loss_sum
        self._num_in_epoch = -self._num_losses

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total, count = _added(self._epoch_sum, self._loss_sum), self._num_in_epoch + self._num_losses
        if total is not None and count:
            mean = (total / count).to(trainer.strategy.root_device)
            self.epoch_loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(outputs, dict) and isinstance(outputs.get("loss"), Tensor):  # manual optimization may return none
            loss = outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning divided it to add gradients up
            self._loss_sum = _added(self._loss_sum, loss)
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
        self._epoch_sum, self._num_in_epoch = _added(self._epoch_sum, self._loss_sum), self._num_in_epoch + self._num_losses
        self._loss_sum, self._num_losses = None, 0


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total + more


def _own(sums: Any) -> Tensor:
    """Returns the sum of this process; the mean of all where another number of processes has saved them."""
    sums, group = torch.as_tensor(sums), torch.distributed
    rank, size = (group.get_rank(), group.get_world_size()) if group.is_initialized() else (0, 1)
    own: Tensor = sums[rank] if len(sums) == size else sums.mean()
    return own
