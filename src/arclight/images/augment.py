"""Random augmentation of whole batches of raw images on their device, without Python per sample.

Random numbers are drawn on the CPU for all global batches of an epoch (`Augment.draw`); `crop`, `flip` and `cutout` are pure
functions of images and draws. So a sample is augmented the same way whichever process has it.

Crop and flip are one gather of pixels: the fastest of six ways on a CPU, by a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arclight.errors import InputError

GREY = 128  # fills cut-out squares


class Draws(NamedTuple):
    """Random numbers of B samples. All are drawn, used or not, so that no setting shifts another."""

    tops: Tensor  # int64 (B,), 0..2 * crop, first row of the window in the padded image
    lefts: Tensor  # int64 (B,), 0..2 * crop
    flips: Tensor  # bool (B,)
    centres: Tensor  # float32 (B, 2), 0..1, centre of the cut-out square in height and width

    def part(self, offset: int, length: int) -> Draws:
        """Returns the draws of `length` samples from `offset` on."""
        return Draws(*(field[offset : offset + length] for field in self))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of the augmentation; all off by default.

    Args:
        crop: pixels of black padding on each side, out of which a random window of the old size is cut; 0 is off.
        flip: true mirrors each image with probability 1/2; "alternating" mirrors it in every second epoch, starting at random
            with the first or the second, so that two epochs show both sides.
        cutout: side in pixels of a grey square at a random place; 0 is off.

    Raises:
        InputError: when a size is negative or not a whole number, or `flip` is none of its values.

    Source: alternating flips as in Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.6.
    """

    crop: int = 0
    flip: bool | Literal["alternating"] = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, value in (("crop", self.crop), ("cutout", self.cutout)):
            if not isinstance(value, int) or value < 0:
                raise InputError(
                    f"data.augment.{name}={value} must be a whole number of pixels, 0 (off) or more", key=f"data.augment.{name}"
                )
        if self.flip not in (True, False, "alternating"):
            raise InputError(f"data.augment.flip={self.flip} must be true, false or alternating", key="data.augment.flip")

    def draw(self, num_samples: int, *, generator: torch.Generator) -> Draws:
        """Returns random numbers for `num_samples` samples; they depend on the generator and on `crop` only."""
        return Draws(
            torch.randint(0, 2 * self.crop + 1, (num_samples,), generator=generator),
            torch.randint(0, 2 * self.crop + 1, (num_samples,), generator=generator),
            torch.rand(num_samples, generator=generator) < 0.5,
            torch.rand(num_samples, 2, generator=generator),
        )

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Returns augmented copies of images, uint8 (B, C, H, W), on the same device."""
        tops, lefts, flips, centres = (field.to(images.device, non_blocking=True) for field in draws)
        if self.crop:
            images = crop(images, tops, lefts, padding=self.crop, flips=flips if self.flip else None)
        elif self.flip:
            images = flip(images, flips)
        return cutout(images, centres, side=self.cutout) if self.cutout else images


def alternate(sides: Tensor, indices: Tensor, epoch: int) -> Tensor:
    """Returns the flips of an epoch, bool (B,), for the rows `indices` (B,); `sides`, bool (N,), are those of epoch 0."""
    return sides[indices] ^ (epoch % 2 == 1)


def crop(images: Tensor, tops: Tensor, lefts: Tensor, *, padding: int, flips: Tensor | None = None) -> Tensor:
    """Returns windows of images (B, C, H, W) with `padding` black pixels around them, cut at (top, left), each int64 (B,).

    `flips`, bool (B,), mirrors windows in the same pass.
    """
    height, width = images.shape[2:]
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + _columns(width, flips, images.device)
    return _gather_pixels(torch.nn.functional.pad(images, (padding,) * 4), rows, columns)


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Returns images (B, C, H, W), mirrored left to right where `flips`, bool (B,)."""
    rows = torch.arange(images.shape[2], device=images.device).expand(len(images), -1)
    return _gather_pixels(images, rows, _columns(images.shape[3], flips, images.device))


def cutout(images: Tensor, centres: Tensor, *, side: int) -> Tensor:
    """Returns uint8 images (B, C, H, W) with a grey square of `side` pixels around `centres`, float32 (B, 2), 0..1.

    Source:
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552; they fill with 0 after normalising, which GREY is close to.
    """
    height, width = images.shape[2:]
    rows = _near(centres[:, :1], height, side)  # (B, H)
    columns = _near(centres[:, 1:], width, side)  # (B, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], GREY)


def _near(centres: Tensor, length: int, side: int) -> Tensor:
    """Returns which of `length` positions lie in a window of `side` around each centre (B, 1); bool (B, length)."""
    first = (centres * length).long() - side // 2
    positions = torch.arange(length, device=centres.device)
    return (positions >= first) & (positions < first + side)


def _columns(width: int, flips: Tensor | None, device: torch.device) -> Tensor:
    """Returns columns 0..W-1, reversed where `flips`; (B, W), or (W,) without flips."""
    columns = torch.arange(width, device=device)
    return columns if flips is None else torch.where(flips[:, None], width - 1 - columns, columns)


def _gather_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns pixel (rows[b, i], columns[b, j]) of image b (C, H, W) at (b, :, i, j); both int64, (B, h) and (B, w)."""
    batch, channels, _, width = images.shape
    positions = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)  # (B, 1, h * w)
    pixels = images.flatten(2).gather(2, positions.expand(-1, channels, -1))  # (B, C, h * w)
    return pixels.view(batch, channels, rows.shape[1], columns.shape[1])
