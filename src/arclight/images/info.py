"""Metadata of an image data set, and a batch of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, get_args

from arclight.errors import InputError, shown
from arclight.images.decoding import Resize
from arclight.interfaces import DataInfo

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from torch import Tensor

    from arclight.export.program import Program
    from arclight.images.inference import ImagePipeline


@dataclass(frozen=True, kw_only=True)
class ImageInfo(DataInfo):
    """Metadata of an image data set; every image has the same shape.

    `mean` and `std` are per channel, over the training split, of pixels scaled to 0..1.
    `resize` and `bits` are those of `read_image`, by which an image file becomes such an image.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize = "crop"
    bits: int | None = None

    content: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Raises InputError for values that no data set has: those of a checkpoint may be anybody's."""
        for name in ("channels", "height", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"data_info.{name}={getattr(self, name)} must be 1 or more", key=f"data_info.{name}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels or not all(map(math.isfinite, values)):
                message = f"data_info.{name}={shown(values)} must be one finite number for each of {self.channels} channels"
                raise InputError(message, key=f"data_info.{name}")
        if self.resize not in get_args(Resize):
            choices = ", ".join(get_args(Resize))
            raise InputError(f"data_info.resize={self.resize} must be one of {choices}", key="data_info.resize")
        if not self.classes:
            raise InputError("data_info.classes is empty; it must name the classes", key="data_info.classes")

    @property
    def num_classes(self) -> int:
        """The number of classes, for nets that take it."""
        return len(self.classes)

    @classmethod
    def stand_in(cls) -> ImageInfo:
        return cls(channels=3, height=1024, width=1024, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)

    def input_pipeline(self) -> ImagePipeline:
        """Returns what reads images for a model built from this, and turns its logits into labels."""
        from arclight.images.inference import ImagePipeline  # imports torch

        return ImagePipeline(self)

    def export_program(self, module: LightningModule) -> Program:
        """Returns a module built from this as raw pixels in, logits and probabilities out."""
        from arclight.images.export import image_program  # imports torch

        return image_program(module, self)

    def describe(self) -> str:
        """Returns shape and number of classes for the run summary."""
        return f"{self.channels}x{self.height}x{self.width}, {len(self.classes)} classes"


class ImageBatch(NamedTuple):
    """The part of a batch of images that one process takes at once, as raw pixels."""

    images: Tensor  # uint8 (B, C, H, W)
    labels: Tensor  # int64 (B,), IGNORE_INDEX on rows that only pad the batch
    indices: Tensor  # int64 (B,), row in the split, -1 on rows that only pad the batch

    @property
    def num_samples(self) -> int:
        """Rows of the batch."""
        return len(self.indices)

    @property
    def example_inputs(self) -> tuple[Tensor]:
        """What the module's `forward` takes."""
        return (self.images,)
