"""What an image data set tells models about itself, and a batch of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from arclight.interfaces import DataInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageInfo(DataInfo):
    """Facts of an image data set; every image has the same shape.

    `mean` and `std` are per channel, over the training split, of pixels scaled to 0..1.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageBatch(NamedTuple):
    """One process's part of a batch of images, as raw pixels."""

    images: Tensor  # uint8 (B, C, H, W)
    labels: Tensor  # int64 (B,), IGNORED on rows that only fill the batch
    indices: Tensor  # int64 (B,), row in the split, -1 on rows that only fill the batch
