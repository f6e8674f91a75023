"""How fast training goes and what it waits for, measured in every run without slowing it."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from arclight.spec import ImageBatch, TokenBatch

NUM_FIRST = 10  # parts whose time is left out of the steady state: caches, allocators and compilers warm up in them


@dataclass
class Window:
    """Sums over some parts of batches on this process; `wait_s` is the time spent until a part was there."""

    parts: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    wait_s: float = 0.0


class Throughput(Callback):
    """Counts samples, real tokens and seconds of training, validation left out; the host's clock, no wait for the device.

    Every `log_every_n_steps` optimizer steps it logs the mean loss since the last time, the learning rate and the speed; only
    then does it read a number from the device.
    """

    def __init__(self, started: float) -> None:
        """`started`: when the process started, in seconds since the epoch."""
        super().__init__()
        self.started = started
        self.first_step_s: float | None = None
        self.first, self.steady = Window(), Window()
        self.last_loss: float | None = None
        self._mark = 0.0  # when the last part ended
        self._loss_sum: Tensor | None = None
        self._num_losses = 0
        self._recent = Window()

    def state_dict(self) -> dict[str, Any]:
        loss_sum = 0.0 if self._loss_sum is None else float(self._loss_sum)
        return {"loss_sum": loss_sum, "num_losses": self._num_losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["num_losses"]:
            self._loss_sum, self._num_losses = torch.tensor(state_dict["loss_sum"]), state_dict["num_losses"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drain(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drain(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        waited = time.perf_counter() - self._mark
        for window in self._open_windows():
            window.wait_s += waited

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch | TokenBatch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        for window in self._open_windows():
            window.parts += 1
            window.samples += len(batch.indices)
            window.tokens += batch.num_tokens if isinstance(batch, TokenBatch) else 0
            window.seconds += now - self._mark
        self._mark = now
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning has divided it for the sum of gradients
        self._loss_sum = loss if self._loss_sum is None else self._loss_sum + loss  # a restored sum comes over to the device
        self._num_losses += 1
        accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.first_step_s is None and accumulated:
            self.first_step_s = time.time() - self.started
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set outside __init__
        if accumulated and every and trainer.global_step % every == 0:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_losses:
            self._log(trainer)

    def numbers(self, trainer: Trainer) -> dict[str, float]:
        """The speed of the fit over all processes, as results.json names it; every process must ask.

        `train/step_ms` is an optimizer step. Of a fit too short for a steady state, the first parts are taken; before any part
        there are no numbers.
        """
        window = self.steady if self.steady.parts else self.first
        if not window.parts:
            return {}
        sums = torch.tensor([float(window.samples), float(window.tokens)], device=trainer.strategy.root_device)
        samples, tokens = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        steps = window.parts / trainer.accumulate_grad_batches
        numbers = {
            "train/samples_per_s": samples / window.seconds,
            "train/step_ms": 1000 * window.seconds / steps,
            "train/data_wait_share": window.wait_s / window.seconds,
        }
        if tokens:
            numbers["train/tokens_per_s"] = tokens / window.seconds
        if self.first_step_s is not None:
            numbers["time/first_step_s"] = self.first_step_s
        return numbers

    def _open_windows(self) -> tuple[Window, Window]:
        return (self.first if self.first.parts < NUM_FIRST else self.steady, self._recent)

    def _drain(self, device: torch.device) -> None:
        """Waits for what the device still has to do and counts it as training."""
        if device.type == "cuda" and self._mark:
            torch.cuda.synchronize(device)
            now = time.perf_counter()
            (self.steady if self.steady.parts else self.first).seconds += now - self._mark
            self._mark = now

    def _log(self, trainer: Trainer) -> None:
        assert self._loss_sum is not None
        # processes hold equal parts of each batch, so the mean of their means is that of the batch
        self.last_loss = float(trainer.strategy.reduce(self._loss_sum / self._num_losses, reduce_op="mean"))
        metrics = {
            "train/loss": self.last_loss,
            "train/samples_per_s": self._recent.samples * trainer.world_size / max(self._recent.seconds, 1e-9),
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.save()
        self._loss_sum, self._num_losses = None, 0
        for field in fields(Window):
            setattr(self._recent, field.name, field.default)
