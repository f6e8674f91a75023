"""Synthetic images of shapes for first runs and tests, without a download.

Each image has one shape of random size, position, angle and colour on a colour gradient, with spots and noise. No single pixel
reveals the class: the nearest class mean is right about as often as a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arclight.errors import InputError
from arclight.images.datamodule import ArrayDataModule, Arrays

Plane = NDArray[np.floating[Any]]  # float32 throughout

CHUNK = 128  # images drawn at once, which fit the CPU cache
LARGEST = 16e9  # bytes of all images
NUM_SPOTS = 3
NOISE = 16.0  # standard deviation, of 255


class SyntheticImages(ArrayDataModule):
    """Square RGB images of one of eight shapes, equally many of each.

    The arguments not listed here are those of ArrayDataModule.

    Args:
        num_train: images to train on.
        num_val: images to validate on.
        num_test: images to test on.
        image_size: height and width in pixels, 16 or more.
        data_seed: of the images; each split has its own random stream, which does not depend on the size of the others.

    Raises:
        InputError: when a number is too small.
    """

    def __init__(
        self,
        *,
        num_train: int = 4096,
        num_val: int = 512,
        num_test: int = 1024,
        image_size: int = 32,
        data_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(root=None, **options)
        for name, value, least in (
            ("num_train", num_train, 1),
            ("num_val", num_val, 1),
            ("num_test", num_test, 1),
            ("image_size", image_size, 16),
            ("data_seed", data_seed, 0),
        ):
            if value < least:
                raise InputError(f"data.{name}={value} must be {least} or more", key=f"data.{name}")
        if (size := (num_train + num_val + num_test) * 3 * image_size**2) > LARGEST:
            message = f"data.num_train={num_train}: these images would take {size / 1e9:,.0f} GB; make fewer or smaller ones"
            raise InputError(message, key="data.num_train")
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.image_size = image_size
        self.data_seed = data_seed

    def prepare(self) -> None:
        """Does nothing: `load` generates the images."""

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        streams = {"train": 0, "val": 1} if part == "fit" else {"test": 2}
        arrays = {
            split: draw(self.counts[split], self.image_size, random=np.random.default_rng((self.data_seed, stream)))
            for split, stream in streams.items()
        }
        return arrays, tuple(SHAPES)


def draw(num_images: int, image_size: int, *, random: np.random.Generator) -> Arrays:
    """Returns images of `image_size` squared pixels and their classes, indices of SHAPES."""
    labels = random.permutation(np.arange(num_images) % len(SHAPES))
    images = np.empty((num_images, 3, image_size, image_size), np.uint8)
    for start in range(0, num_images, CHUNK):
        images[start : start + CHUNK] = _images(labels[start : start + CHUNK], image_size, random)
    return Arrays(torch.from_numpy(images), torch.from_numpy(labels))


def _images(labels: NDArray[np.int64], size: int, random: np.random.Generator) -> Plane:
    """Returns pixels 0..255, float32 (N, 3, size, size)."""
    num = len(labels)
    y, x = np.mgrid[:size, :size].astype(np.float32)  # each (size, size)
    background = _uniform(random, (num, 3, 1, 1), 0, 255)
    ink = (background + _uniform(random, (num, 3, 1, 1), 90, 166)) % 256  # at least 90 from the background
    fade_down, fade_right = _uniform(random, (2, num, 3, 1, 1), -60, 60) / size
    pixels = background + fade_down * (y - size / 2) + fade_right * (x - size / 2)
    pixels += _covers(labels, y, x, random)[:, None] * (ink - pixels)
    for _ in range(NUM_SPOTS):
        top, left = _uniform(random, (2, num, 1, 1), 0, size)
        spot = np.hypot(y - top, x - left) < _uniform(random, (num, 1, 1), 0.03, 0.07) * size  # (N, size, size)
        pixels += spot[:, None] * (_uniform(random, (num, 3, 1, 1), 0, 255) - pixels)
    pixels += NOISE * random.standard_normal(pixels.shape, np.float32)
    clipped: Plane = np.clip(pixels, 0, 255, out=pixels)
    return clipped


def _covers(labels: NDArray[np.int64], y: Plane, x: Plane, random: np.random.Generator) -> Plane:
    """Returns the fraction of each pixel that the shape covers, float32 (N, size, size)."""
    num, size = len(labels), len(y)
    radius = _uniform(random, (num, 1, 1), 0.28, 0.42) * size
    border = _uniform(random, (2, num, 1, 1), 0.8, 1.0) * radius  # least distance of the shape's centre from the edge
    top, left = border + (size - 2 * border) * _uniform(random, (2, num, 1, 1), 0, 1)
    down, right = (y - top) / radius, (x - left) / radius
    angle = _uniform(random, (num, 1, 1), 0, 2 * math.pi)
    u, v = np.cos(angle) * right - np.sin(angle) * down, np.sin(angle) * right + np.cos(angle) * down
    covers: Plane = np.empty_like(u)
    for label, distance in enumerate(SHAPES.values()):
        rows = labels == label
        covers[rows] = np.clip(0.5 - distance(u[rows], v[rows]) * radius[rows], 0, 1)  # soft over one pixel
    return covers


def _uniform(random: np.random.Generator, shape: int | tuple[int, ...], low: float, high: float) -> Plane:
    numbers: Plane = low + (high - low) * random.random(shape, np.float32)
    return numbers


# Approximate signed distances of (u, v) from the shape, negative inside; each shape fits into the unit circle.


def _intersection(first: Plane, second: Plane) -> Plane:
    """Returns the intersection of two shapes."""
    common: Plane = np.maximum(first, second)
    return common


def _circle(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 0.85


def _crescent(u: Plane, v: Plane) -> Plane:
    return _intersection(np.hypot(u, v) - 0.95, 0.8 - np.hypot(u - 0.5, v))


def _cross(u: Plane, v: Plane) -> Plane:
    across, along = np.abs(u), np.abs(v)
    return _intersection(np.maximum(across, along) - 0.95, np.minimum(across, along) - 0.28)


def _hourglass(u: Plane, v: Plane) -> Plane:
    return _intersection(np.abs(v) - 0.7, (np.abs(u) - np.abs(v)) * 0.75)


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.hypot(u, v) - 0.72) - 0.22


def _square(u: Plane, v: Plane) -> Plane:
    return _intersection(np.abs(u), np.abs(v)) - 0.72


def _star(u: Plane, v: Plane) -> Plane:
    """Returns the distance from a star of five points, folded onto half a point: from its tip (1, 0) to the notch."""
    sector = 2 * math.pi / 5
    turned = np.abs((np.arctan2(v, u) + sector / 2) % sector - sector / 2)
    length = np.hypot(u, v)
    notch_x, notch_y = 0.42 * math.cos(sector / 2), 0.42 * math.sin(sector / 2)
    edge = math.hypot(notch_y, 1 - notch_x)
    return ((length * np.cos(turned) - 1) * notch_y + length * np.sin(turned) * (1 - notch_x)) / edge


def _triangle(u: Plane, v: Plane) -> Plane:
    return _intersection(v, np.abs(u) * (math.sqrt(3) / 2) - v / 2) - 0.5


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "crescent": _crescent,
    "cross": _cross,
    "hourglass": _hourglass,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
}
