"""Distillation: a smaller net learns from the logits of a trained run, beside the labels."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from arclight.checkpoint.contents import restore
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.modules.supervised import SupervisedModule


class Distillation(Callback):
    """Adds to the training loss the divergence from a teacher's softened probabilities.

    The loss is (1 - weight) x the module's own + weight x temperature^2 x KL(teacher, student), over labelled positions.

    Args:
        teacher: run directory or checkpoint of a run on the same data: equal classes, and for text an equal tokenizer.
        weight: of the teacher, above 0 and at most 1.
        temperature: both logits are divided by it, above 0; more shows what the teacher thinks of wrong labels.

    Raises:
        InputError: for a number out of range; at the start of training when the teacher does not fit.

    Source:
        Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """

    def __init__(self, teacher: str, weight: float = 0.5, temperature: float = 2.0) -> None:
        super().__init__()
        for name, value, is_right in (("weight", weight, 0 < weight <= 1), ("temperature", temperature, temperature > 0)):
            if not is_right:
                key = f"callbacks.distillation.{name}"
                raise InputError(f"{key}={value} must be above 0{' and at most 1' if name == 'weight' else ''}", key=key)
        self.teacher, self.weight, self.temperature = teacher, weight, temperature

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        restored, key = restore(self.teacher), "callbacks.distillation.teacher"
        if not isinstance(pl_module, SupervisedModule) or not isinstance(restored.module, SupervisedModule):
            raise InputError(f"{key}={self.teacher}: teacher and student must inherit from SupervisedModule", key=key)
        if pl_module.compiled is not None:
            raise InputError("hardware.compile=true and a teacher exclude each other; set hardware.compile=false", key=key)
        known, own = restored.data_info, pl_module.data_info
        for name in ("classes", "labels", "tokenizer"):
            if getattr(known, name, None) != getattr(own, name, None):
                raise InputError(f"{key}={self.teacher}: it was trained with another data_info.{name}", key=key)
        net = restored.module.net.to(pl_module.device).eval().requires_grad_(False)
        pl_module.training_loss = self.loss_with(net, pl_module)  # type: ignore[method-assign]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module.training_loss

    def loss_with(self, teacher: nn.Module, module: SupervisedModule) -> Any:
        """Returns what takes the place of `training_loss`; the teacher is no part of the module and of its checkpoints."""

        def training_loss(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
            logits = module.net(*inputs).float().flatten(0, -2)  # (N, labels)
            with torch.no_grad():
                targets = teacher(*inputs).float().flatten(0, -2)
            is_labelled = (labels.flatten() != IGNORE_INDEX)[:, None]
            student, taught = ((values / self.temperature).log_softmax(dim=-1) for values in (logits, targets))
            each = nn.functional.kl_div(student, taught, reduction="none", log_target=True).masked_fill(~is_labelled, 0)
            divergence = each.sum() * self.temperature**2
            if module.reduction == "mean":
                divergence = divergence / is_labelled.sum().clamp(min=1)
            own = module.loss(logits, labels.flatten(), module.reduction)
            return (1 - self.weight) * own + self.weight * divergence

        return training_loss
