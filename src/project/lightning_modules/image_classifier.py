"""ImageClassifier: trains a net to classify images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageBatch, ImageInfo
from arclight.images.memory_format import memory_format_for
from arclight.interfaces import Monitor
from arclight.metrics.predictions import PredictionCollector
from arclight.metrics.tables import accuracy, class_table
from arclight.modules.supervised import ClassificationModule, Scores

Normalization = Literal["data", "net"]
TestTimeAugmentation = Literal["none", "flip", "flip_and_shift"]
NUM_FOR_FIRST_LAYER = 2000  # images; with 5,000 the filters for CIFAR-10 hardly differ


class ImageClassifier(ClassificationModule):
    """Trains `net` on uint8 images. Pixels are normalised here, so that prediction takes raw images, too.

    The arguments not listed here are those of SupervisedModule.

    Args:
        data_info: metadata of the data.
        net: float images (B, C, H, W) -> logits (B, classes).
        normalization: whose mean and std normalise the pixels: "data", or "net" for those that a net of timm was pretrained
            with and names in `pretrained_cfg`.
        test_time_augmentation: views of each image over which a test averages the logits: "none" is the image alone, "flip" the
            image and its mirror image, "flip_and_shift" these two also shifted by a pixel up and left, and down and right (both
            together weigh as much as the unshifted two). Validation always uses the image alone.
        channels_last: memory format of images and filters; changes speed, not results.
    """

    info_type = ImageInfo
    monitor = Monitor("val/accuracy", "max")

    def __init__(
        self,
        data_info: ImageInfo,
        *,
        net: nn.Module,
        normalization: Normalization = "data",
        test_time_augmentation: TestTimeAugmentation = "none",
        channels_last: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(data_info, net=net, **options)
        self.set_labels(data_info.classes)
        self.test_time_augmentation: TestTimeAugmentation = test_time_augmentation
        self.memory_format = memory_format_for(net, channels_last=channels_last)
        net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # (pixel / 255 - mean) / std as one multiplication and one addition; a channel with std 0 is only shifted
        means, stds = (data_info.mean, data_info.std) if normalization == "data" else pretrained_normalization(net, data_info)
        mean = torch.tensor(means).view(-1, 1, 1)
        std = torch.tensor([value or 1.0 for value in stds]).view(-1, 1, 1)
        # not buffers: weight averaging would average them, and constants drift by rounding
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def setup(self, stage: str) -> None:
        # before a checkpoint is restored, which overwrites the filters; every process computes the same
        fit_first_layer: Callable[[Tensor], None] | None = getattr(self.net, "fit_first_layer", None)
        sample: Callable[[int], Tensor] | None = getattr(self.trainer.datamodule, "sample", None)  # type: ignore[attr-defined]
        if stage == "fit" and fit_first_layer is not None and sample is not None:  # data modules need not offer samples
            fit_first_layer(self.normalize(sample(NUM_FOR_FIRST_LAYER)))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of raw uint8 images (B, C, H, W)."""
        logits: Tensor = self.net(self.normalize(images))
        return logits

    def normalize(self, images: Tensor) -> Tensor:
        """Returns raw uint8 images as the net takes them, (B, C, H, W) of its dtype."""
        dtype = self.dtype
        assert isinstance(dtype, torch.dtype)
        if (self._scale.device, self._scale.dtype) != (images.device, dtype):
            self._scale, self._shift = (constant.to(images.device, dtype) for constant in (self._scale, self._shift))
        pixels = torch.addcmul(self._shift, images.to(dtype), self._scale)  # (B, C, H, W)
        return pixels.contiguous(memory_format=self.memory_format)

    def training_step(self, batch: ImageBatch) -> Tensor:
        return self.training_loss((self.normalize(batch.images),), batch.labels)

    def update_metrics(self, batch: ImageBatch, collector: PredictionCollector | None = None) -> None:
        # only a test has a collector
        logits = self(batch.images).float() if collector is None else self.predict_forward(batch.images)
        predicted = logits.argmax(dim=1)
        self.update_loss(logits, batch.labels)
        self.confusion.update(predicted, batch.labels)
        if collector is not None:
            collector.add(batch.indices, batch.labels, predicted, logits.softmax(dim=1).amax(dim=1))

    def mean_over_views(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes), float32, of raw images: the weighted mean over the views of test-time augmentation."""
        views = [(images, 1.0)]
        if self.test_time_augmentation == "flip_and_shift":
            views = [(images, 0.5), (shift(images, 1), 0.25), (shift(images, -1), 0.25)]
        if self.test_time_augmentation != "none":
            views = [(side, weight / 2) for view, weight in views for side in (view, view.flip(3))]
        return torch.stack([weight * self(view).float() for view, weight in views]).sum(0)

    def predict_forward(self, images: Tensor) -> Tensor:
        """Returns the logits that a test evaluates; takes what `forward` takes."""
        return self.mean_over_views(images)

    def compute_metrics(self) -> Scores:
        counts = self.confusion.compute()
        table = class_table(counts, self.labels, title="Per class")
        return Scores(
            metrics={"loss": self.mean_loss(), "accuracy": accuracy(counts)},
            per_class={row.name: row.f1 for row in table.rows},
            tables=(table,),
            labels=self.labels,
            counts=counts.tolist(),
        )


def pretrained_normalization(net: nn.Module, data_info: ImageInfo) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std per channel, of pixels in 0..1, that a net of timm was pretrained with.

    Raises:
        InputError: when the net names none, or for another number of channels than the images have.
    """
    config = getattr(net, "pretrained_cfg", {})
    if not any(True for _ in net.parameters()):  # stands in for another net
        return data_info.mean, data_info.std
    found: tuple[tuple[float, ...], tuple[float, ...]] = config.get("mean", ()), config.get("std", ())
    if [len(values) for values in found] != [data_info.channels] * 2:
        raise InputError(
            f"module.normalization=net: {type(net).__name__} has no mean and std for {data_info.channels} channels in "
            "pretrained_cfg; set module.normalization=data",
            key="module.normalization",
        )
    return found


def shift(images: Tensor, distance: int) -> Tensor:
    """Returns images (B, C, H, W) shifted down and right by `distance` pixels, up and left if negative; edges repeat."""
    rows, columns = (
        torch.arange(-distance, length - distance, device=images.device).clamp(0, length - 1) for length in images.shape[2:]
    )
    return images[:, :, rows[:, None], columns]
