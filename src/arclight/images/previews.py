"""Summary of an image data set for the report: class counts, and samples as PNG in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

MAX_SIDE = 128  # pixels of a preview's longer side
MAX_PREVIEWS = 24


def encode_png(image: Tensor) -> str:
    """Returns an image, uint8 (C, H, W), as PNG in base64: grey of 1 or 2 channels, else the first three as RGB."""
    from PIL import Image

    pixels = image[: 3 if len(image) >= 3 else 1].permute(1, 2, 0).cpu().numpy()  # (H, W, 1 or 3)
    preview = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    preview.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    preview.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def first_rows_of_classes(labels: Tensor, num_classes: int) -> list[int]:
    """Returns the first rows of each class, equally many of each, at most MAX_PREVIEWS in all."""
    per_class = max(1, MAX_PREVIEWS // max(1, num_classes))
    classes = range(min(num_classes, MAX_PREVIEWS))
    return [row for label in classes for row in (labels == label).nonzero().flatten()[:per_class].tolist()]


def summarize_images(splits: Mapping[str, tuple[Any, Tensor]], classes: Sequence[str]) -> dict[str, Any]:
    """Returns the counts of each class by split, and previews of the training split.

    `splits` are images, uint8 (N, C, H, W), and labels, int64 (N,), by name.
    """
    counts = {
        split: dict(zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True))
        for split, (_, labels) in splits.items()
    }
    images, labels = splits.get("train", next(iter(splits.values())))
    rows = first_rows_of_classes(labels, len(classes))
    return {
        "counts": counts,
        "samples": [{"image": encode_png(images[row]), "label": classes[int(labels[row])]} for row in rows],
    }
