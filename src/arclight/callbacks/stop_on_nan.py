"""StopOnNan: ends training when the loss is not finite, and names the step and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from arclight.callbacks.exact_resume import train_loaders
from arclight.data.exact_loader import ExactLoader
from arclight.distributed.collectives import gather_objects
from arclight.errors import InputError

EVERY_N_STEPS = 50  # between checks where nothing is logged
MOST_SAMPLES = 32  # that a message lists


@dataclass(frozen=True)
class Step:
    """A micro-batch whose loss is not checked yet."""

    step: int  # optimizer steps before it
    epoch: int
    batch: int  # in the epoch, of this process
    samples: tuple[Any, ...]  # numbers in the data set; empty where the loader does not know them
    loss: Tensor


class StopOnNan(Callback):
    """Stops when the loss that `training_step` returns is nan or infinite.

    Losses are checked every `log_every_n_steps` steps and before a checkpoint is written, so that no step waits for the device
    and no checkpoint holds weights after such a step.

    Raises:
        InputError: naming the first such step of all processes, and the samples of its batch.
    """

    def __init__(self) -> None:
        self._unchecked: list[Step] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            is_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
            step = trainer.global_step - is_done
            self._unchecked.append(Step(step, trainer.current_epoch, batch_idx, samples_of(trainer), loss.detach().mean()))
        every = trainer.log_every_n_steps or EVERY_N_STEPS  # type: ignore[attr-defined]  # set outside __init__
        if (batch_idx + 1) % (every * trainer.accumulate_grad_batches) == 0:
            self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        """Reads the losses since the last check; a collective call."""
        steps, self._unchecked = self._unchecked, []
        is_finite = torch.isfinite(torch.stack([step.loss for step in steps])).tolist() if steps else []
        wrong = next((step for step, fine in zip(steps, is_finite, strict=True) if not fine), None)
        own = None if wrong is None else (wrong.step, wrong.epoch, wrong.batch, wrong.samples, float(wrong.loss))
        found = [one for one in gather_objects(own) if one is not None]
        if found:
            raise InputError(describe(min(found, key=lambda one: one[:3])), key="callbacks.stop_on_nan")


def samples_of(trainer: Trainer) -> tuple[Any, ...]:
    """Returns the numbers of the samples of the last micro-batch of this process; empty where its loader does not know them."""
    return tuple(sample for loader in train_loaders(trainer) if isinstance(loader, ExactLoader) for sample in loader.samples)


def describe(found: tuple[int, int, int, tuple[Any, ...], float]) -> str:
    """Returns the message for the first loss that is not finite: optimizer steps before it, epoch, batch, samples, loss."""
    step, epoch, batch, samples, loss = found
    listed = ", ".join(map(str, samples[:MOST_SAMPLES])) + (", ..." if len(samples) > MOST_SAMPLES else "")
    place = f"; its samples of the training data: {listed}" if samples else ""
    return (
        f"the loss is {loss} in step {step + 1} (batch {batch} of epoch {epoch}){place}. Look at these samples, lower "
        "optimizer.lr, clip gradients with trainer.gradient_clip_val=1, or use precision=fp32"
    )
