"""Random changes to whole batches of raw images, on the device that holds them, with no Python per sample.

What is random is drawn on the CPU for the global batches of an epoch (`Augment.draw`); what is done is a pure function of
images and draws (`crop`, `flip`, `cutout`). So a sample changes the same way whichever process has it.

Crop and flip are one gather of pixels: on a CPU it took half the time of the next best of six ways (windows of an unfolded
batch, a gather per axis, advanced indexing, grid_sample, a slice per offset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arclight.errors import InputError

GREY = 128  # fills cut-out squares


class Draws(NamedTuple):
    """What chance decided for each of B samples; all is drawn, used or not, so that one setting never shifts another."""

    tops: Tensor  # int64 (B,), 0..2 * crop, first row that is kept of the padded image
    lefts: Tensor  # int64 (B,), 0..2 * crop
    flips: Tensor  # bool (B,)
    centres: Tensor  # float32 (B, 2), 0..1, where the cut-out square lies in height and width

    def part(self, offset: int, length: int) -> Draws:
        """The draws of `length` samples from `offset` on."""
        return Draws(*(field[offset : offset + length] for field in self))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of the random changes; all off by default.

    Args:
        crop: pixels of black added on each side before a window of the old size is cut out at random; 0 is off.
        flip: mirrors every second image, left to right, by chance; "alternating" mirrors each image in every second epoch, by
            chance from the first or from the second on, so that two epochs show both sides of every image.
        cutout: side in pixels of a grey square at a random place; 0 is off.

    Raises:
        InputError: when a size is negative or no whole number, or `flip` is neither of its values.

    Source: alternating flips as in Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.6.
    """

    crop: int = 0
    flip: bool | Literal["alternating"] = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop", "cutout"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise InputError(f"data.augment.{name}={value} must be a whole number of pixels, 0 (off) or more")
        if self.flip not in (True, False, "alternating"):
            raise InputError(f"data.augment.flip={self.flip} must be true, false or alternating")

    @property
    def alternates(self) -> bool:
        """Whether flips follow the epoch: `alternate` then takes the place of the drawn ones."""
        return self.flip == "alternating"

    def draw(self, num_samples: int, *, generator: torch.Generator) -> Draws:
        """Chances for `num_samples` samples; the same generator gives the same for any settings with this crop."""
        return Draws(
            torch.randint(0, 2 * self.crop + 1, (num_samples,), generator=generator),
            torch.randint(0, 2 * self.crop + 1, (num_samples,), generator=generator),
            torch.rand(num_samples, generator=generator) < 0.5,
            torch.rand(num_samples, 2, generator=generator),
        )

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """The changed images, uint8 (B, C, H, W) on the same device; the given ones stay as they are."""
        tops, lefts, flips, centres = (field.to(images.device, non_blocking=True) for field in draws)
        if self.crop:
            images = crop(images, tops, lefts, padding=self.crop, flips=flips if self.flip else None)
        elif self.flip:
            images = flip(images, flips)
        if self.cutout:
            images = cutout(images, centres, side=self.cutout)
        return images


def alternate(sides: Tensor, indices: Tensor, epoch: int) -> Tensor:
    """Flips for samples of an epoch, bool (B,): those that `sides` drew in even epochs, the others in odd ones.

    Args:
        sides: bool (N,), drawn once for all samples of the split.
        indices: int64 (B,), rows of the split.
        epoch: counted from 0.
    """
    return sides[indices] ^ (epoch % 2 == 1)


def crop(images: Tensor, tops: Tensor, lefts: Tensor, *, padding: int, flips: Tensor | None = None) -> Tensor:
    """Windows of the old size, cut at (top, left) out of images with `padding` pixels of black around them.

    Args:
        images: (B, C, H, W).
        tops: int64 (B,), 0..2 * padding.
        lefts: int64 (B,), 0..2 * padding.
        padding: pixels on each side.
        flips: bool (B,), windows to mirror in the same pass.
    """
    height, width = images.shape[2:]
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + _columns(width, flips, images.device)
    return _pixels(torch.nn.functional.pad(images, (padding,) * 4), rows, columns)


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Images (B, C, H, W), mirrored left to right where `flips`, bool (B,), says so."""
    rows = torch.arange(images.shape[2], device=images.device).expand(len(images), -1)
    return _pixels(images, rows, _columns(images.shape[3], flips, images.device))


def cutout(images: Tensor, centres: Tensor, *, side: int) -> Tensor:
    """Images (B, C, H, W) with one grey square each; a square near the edge is partly outside.

    Args:
        images: uint8.
        centres: float32 (B, 2), 0..1 of height and width.
        side: of the square, in pixels.

    Source:
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552; they fill with 0 after normalising, here raw pixels
        become GREY, which is near it.
    """
    height, width = images.shape[2:]
    rows = _near(centres[:, :1], height, side)  # (B, H)
    columns = _near(centres[:, 1:], width, side)  # (B, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], GREY)


def _near(centres: Tensor, length: int, side: int) -> Tensor:
    """Which of `length` places lie within the square's side around each centre; bool (B, length) of (B, 1)."""
    first = (centres * length).long() - side // 2
    places = torch.arange(length, device=centres.device)
    return (places >= first) & (places < first + side)


def _columns(width: int, flips: Tensor | None, device: torch.device) -> Tensor:
    """Columns 0..W-1, counted from the right where `flips`; (B, W), or (W,) without flips."""
    columns = torch.arange(width, device=device)
    return columns if flips is None else torch.where(flips[:, None], width - 1 - columns, columns)


def _pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel (rows[b, i], columns[b, j]) of image b at (b, :, i, j).

    Args:
        images: (B, C, H, W), contiguous or channels_last.
        rows: int64 (B, h).
        columns: int64 (B, w).
    """
    batch, channels, _, width = images.shape
    places = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)  # (B, 1, h * w)
    picked = images.flatten(2).gather(2, places.expand(-1, channels, -1))  # (B, C, h * w)
    return picked.view(batch, channels, rows.shape[1], columns.shape[1])
