"""ImageClassifier: raw pixels in, class probabilities learned, every image counted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from arclight.images.info import ImageBatch, ImageInfo
from arclight.interfaces import Monitor
from arclight.metrics.confusion import accuracy, class_table
from arclight.metrics.predictions import PredictionCollector
from arclight.modules.supervised import Scores, SupervisedModule
from arclight.optim.param_groups import LrRule, LRSchedule, MakeOptimizer

TestTimeAugmentation = Literal["none", "flip", "flip_and_shift"]
NUM_FOR_FIRST_LAYER = 2000  # images; with 5,000 the filters of CIFAR-10 hardly differ


class ImageClassifier(SupervisedModule):
    """Trains `net` on uint8 images; pixels are normalised here, so that raw ones go in when predicting, too.

    Args:
        data_info: the data's facts; mean and std become buffers.
        net: float images (B, C, H, W) -> logits (B, classes).
        make_optimizer: wants the parameter groups.
        scheduler: (step, total_steps) -> factor on the learning rate.
        label_smoothing: share of each target spread over all classes, 0 or more and below 1.
        lr_rule: how the learning rate follows the global batch: "none", "linear" or "sqrt" of its quotient by `lr_batch_size`.
        lr_batch_size: the global batch that the optimizer's learning rate was chosen for; every rule but "none" wants it.
        test_time_augmentation: how many views of each image the logits of a test are the mean of: "none" is the image alone,
            "flip" it and its mirror image, "flip_and_shift" these two also moved by a pixel up and left, and down and right
            (both together weigh as much as the two in place). Validation, which compares epochs, takes the image alone.
        channels_last: lays images and filters out as convolutions like them best; changes speed, not results.
    """

    info_type = ImageInfo
    monitor = Monitor("val/accuracy", "max")

    def __init__(
        self,
        data_info: ImageInfo,
        *,
        net: nn.Module,
        make_optimizer: MakeOptimizer,
        scheduler: LRSchedule,
        label_smoothing: float = 0.0,
        lr_rule: LrRule = "none",
        lr_batch_size: int | None = None,
        test_time_augmentation: TestTimeAugmentation = "none",
        channels_last: bool = True,
    ) -> None:
        super().__init__(
            data_info,
            net=net,
            labels=data_info.classes,
            make_optimizer=make_optimizer,
            scheduler=scheduler,
            label_smoothing=label_smoothing,
            lr_rule=lr_rule,
            lr_batch_size=lr_batch_size,
        )
        self.classes = data_info.classes
        self.test_time_augmentation: TestTimeAugmentation = test_time_augmentation
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # (pixel / 255 - mean) / std as one multiplication and one addition; a channel without spread is only shifted
        mean = torch.tensor(data_info.mean).view(-1, 1, 1)
        std = torch.tensor([value or 1.0 for value in data_info.std]).view(-1, 1, 1)
        # no buffers: weight averaging would average these, too, and constants drift in that by rounding
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def setup(self, stage: str) -> None:
        # before a checkpoint is restored, whose filters then win; every process computes the same
        fit_first_layer: Callable[[Tensor], None] | None = getattr(self.net, "fit_first_layer", None)
        sample: Callable[[int], Tensor] | None = getattr(self.trainer.datamodule, "sample", None)  # type: ignore[attr-defined]
        if stage == "fit" and fit_first_layer is not None and sample is not None:  # made-up batches, to measure with, have none
            fit_first_layer(self.normalize(sample(NUM_FOR_FIRST_LAYER)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of raw uint8 images (B, C, H, W)."""
        logits: Tensor = self.net(self.normalize(images))
        return logits

    def normalize(self, images: Tensor) -> Tensor:
        """What the net takes, (B, C, H, W) of its dtype, of raw uint8 images."""
        dtype = self.dtype
        assert isinstance(dtype, torch.dtype)
        if (self._scale.device, self._scale.dtype) != (images.device, dtype):
            self._scale, self._shift = (constant.to(images.device, dtype) for constant in (self._scale, self._shift))
        pixels = torch.addcmul(self._shift, images.to(dtype), self._scale)  # (B, C, H, W)
        return pixels.contiguous(memory_format=self.memory_format)

    def training_step(self, batch: ImageBatch) -> Tensor:
        return self.loss_of((self.normalize(batch.images),), batch.labels)

    def count(self, batch: ImageBatch, collector: PredictionCollector | None = None) -> None:
        # only a test keeps what is predicted
        logits = self(batch.images).float() if collector is None else self.mean_over_views(batch.images)
        predicted = logits.argmax(dim=1)
        self.count_losses(logits, batch.labels)
        self.confusion.update(predicted, batch.labels)
        if collector is not None:
            collector.add(batch.indices, batch.labels, predicted, logits.softmax(dim=1).amax(dim=1))

    def mean_over_views(self, images: Tensor) -> Tensor:
        """Logits (B, classes), float32, of raw images, weighed over the views of test-time augmentation."""
        views = [(images, 1.0)]
        if self.test_time_augmentation == "flip_and_shift":
            moved = [shift(images, 1), shift(images, -1)]
            views = [(images, 0.5), *((view, 0.25) for view in moved)]
        if self.test_time_augmentation != "none":
            views = [(side, weight / 2) for view, weight in views for side in (view, view.flip(3))]
        return torch.stack([weight * self(view).float() for view, weight in views]).sum(0)

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


def shift(images: Tensor, distance: int) -> Tensor:
    """Images (B, C, H, W) moved down and to the right by `distance` pixels, up and left if it is negative; edges repeat."""
    rows, columns = (
        torch.arange(-distance, length - distance, device=images.device).clamp(0, length - 1) for length in images.shape[2:]
    )
    return images[:, :, rows[:, None], columns]
