"""ImageClassifier: raw pixels in, class probabilities learned, every image counted once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arclight.evaluation.confusion import accuracy, class_table
from arclight.evaluation.predictions import KeptPredictions
from arclight.spec import ImageBatch, ImageSpec
from arclight.training.optimizers import LrRule, MakeOptimizer, Schedule
from arclight.training.task import Monitor, Scores, Task


class ImageClassifier(Task):
    """Trains `net` on uint8 images; pixels are normalised here, so that raw ones go in when predicting, too.

    Args:
        spec: the data's facts; mean and std become buffers.
        net: float images (B, C, H, W) -> logits (B, classes).
        make_optimizer: wants the parameter groups.
        schedule: (step, total_steps) -> factor on the learning rate.
        label_smoothing: share of each target spread over all classes, 0 or more and below 1.
        lr_rule: how the learning rate follows the global batch: "none", "linear" or "sqrt" of its quotient by `lr_batch_size`.
        lr_batch_size: the global batch that the optimizer's learning rate was chosen for; every rule but "none" wants it.
        channels_last: lays images and filters out as convolutions like them best; changes speed, not results.
    """

    spec_type = ImageSpec
    monitor = Monitor("val/accuracy", "max")

    def __init__(
        self,
        spec: ImageSpec,
        *,
        net: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        label_smoothing: float = 0.0,
        lr_rule: LrRule = "none",
        lr_batch_size: int | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__(
            spec,
            net=net,
            labels=spec.classes,
            make_optimizer=make_optimizer,
            schedule=schedule,
            label_smoothing=label_smoothing,
            lr_rule=lr_rule,
            lr_batch_size=lr_batch_size,
        )
        self.classes = spec.classes
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # (pixel / 255 - mean) / std as one multiplication and one addition; a channel without spread is only shifted
        mean = torch.tensor(spec.mean).view(-1, 1, 1)
        std = torch.tensor([value or 1.0 for value in spec.std]).view(-1, 1, 1)
        # no buffers: weight averaging would average these, too, and constants drift in that by rounding
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of raw uint8 images (B, C, H, W)."""
        dtype = self.dtype
        assert isinstance(dtype, torch.dtype)
        if (self._scale.device, self._scale.dtype) != (images.device, dtype):
            self._scale, self._shift = (constant.to(images.device, dtype) for constant in (self._scale, self._shift))
        pixels = torch.addcmul(self._shift, images.to(dtype), self._scale)  # (B, C, H, W)
        logits: Tensor = self.net(pixels.contiguous(memory_format=self.memory_format))
        return logits

    def training_step(self, batch: ImageBatch) -> Tensor:
        logits = self(batch.images).float()
        return nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def count(self, batch: ImageBatch, kept: KeptPredictions | None = None) -> None:
        logits = self(batch.images).float()
        predicted = logits.argmax(dim=1)
        self.count_losses(logits, batch.labels)
        self.confusion.update(predicted, batch.labels)
        if kept is not None:
            kept.add(batch.indices, batch.labels, predicted, logits.softmax(dim=1).amax(dim=1))

    def score(self) -> Scores:
        counts = self.confusion.compute()
        table = class_table(counts, self.classes, title="Per class")
        return Scores(
            numbers={"loss": self.mean_loss(), "accuracy": accuracy(counts)},
            per_class={row.name: row.f1 for row in table.rows},
            tables=(table,),
            labels=self.classes,
            counts=counts.tolist(),
        )
