"""Summary of an image data set as plain values for the report: pictures as text, counts, a few samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

LARGEST = 128  # pixels of a picture's longer side
MOST_PICTURES = 24


def picture(image: Tensor) -> str:
    """A PNG in base64 of an image, uint8 (1 or 3 or more channels, H, W); of more than three channels the first three."""
    from PIL import Image

    pixels = image[: 3 if len(image) >= 3 else 1].permute(1, 2, 0).cpu().numpy()  # (H, W, 1 or 3)
    drawn = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    drawn.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def rows_of_each(labels: Tensor, num_classes: int) -> list[int]:
    """The first rows of each class, equally many of each, at most MOST_PICTURES in all: of more classes some have none."""
    each = max(1, MOST_PICTURES // max(1, num_classes))
    rows: list[int] = []
    for number in range(min(num_classes, MOST_PICTURES)):
        rows += (labels == number).nonzero().flatten()[:each].tolist()
    return rows


def summarize_images(splits: Mapping[str, tuple[Any, Tensor]], classes: Sequence[str]) -> dict[str, Any]:
    """Counts of each class by split, and pictures of the training split.

    Args:
        splits: images, uint8 (N, C, H, W) that a row picks one of, and labels, int64 (N,), by split.
        classes: their names.
    """
    counts = {
        split: dict(zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True))
        for split, (_, labels) in splits.items()
    }
    images, labels = splits.get("train", next(iter(splits.values())))
    rows = rows_of_each(labels, len(classes))
    samples = [{"image": picture(images[row]), "label": classes[int(labels[row])]} for row in rows]
    return {"counts": counts, "samples": samples}
