"""Images as inputs of a trained classifier: files, bytes, PIL images and arrays of any size and mode -> labels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from arclight.errors import InputError
from arclight.images.decoding import fit_image, read_image
from arclight.images.info import ImageInfo
from arclight.inference.pipeline import BadItem, Format, InputSpec, Item, Record, read_bytes

MAX_FILE_BYTES = 200_000_000
TOP_K = 5


class ImagePipeline:
    """The `InputPipeline` of an image classifier, as its data info describes the images.

    Records: {"source", "label", "probability", "top": [{"label", "probability"}, ...]}, the most probable first.
    """

    kind = "images"
    suffixes = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
    formats: ClassVar[Mapping[str, Format]] = {}

    def __init__(self, info: ImageInfo) -> None:
        self.labels = info.classes
        self.info = info
        self.shape = (info.channels, info.height, info.width)
        self.inputs = (InputSpec("images", torch.uint8, ("batch", *self.shape)),)

    def read(self, source: Any, name: str) -> Iterator[Item | BadItem]:
        """Yields one image: a path, bytes of a file, a PIL image, or uint8 (H, W), (H, W, C) or (C, H, W) of an array."""
        try:
            yield Item(name, [self._pixels(source, name)])
        except (InputError, ValueError, OSError) as error:
            yield BadItem(name, str(error).removeprefix(f"{name}: "))

    def _pixels(self, source: Any, name: str) -> Tensor:
        """Returns the image as `forward` takes it, uint8 (C, H, W)."""
        import PIL.Image

        if isinstance(source, str):
            source = Path(source)
        if isinstance(source, Path | bytes):
            file = io.BytesIO(read_bytes(source, MAX_FILE_BYTES))
            file.name = name
            return torch.from_numpy(
                read_image(file, self.shape[1:], self.info.bits, channels=self.shape[0], resize=self.info.resize)
            )
        if isinstance(source, Tensor | np.ndarray):
            if source.dtype in (np.uint8, torch.uint8) and tuple(source.shape) == self.shape:
                return torch.as_tensor(source)  # of any number of channels
            source = PIL.Image.fromarray(channels_last(np.asarray(source)))
        if not isinstance(source, PIL.Image.Image):
            raise ValueError(f"{type(source).__name__} is not an image; give a path, bytes, a PIL image or a uint8 array")
        return torch.from_numpy(
            fit_image(source, self.shape[1:], self.info.bits, channels=self.shape[0], resize=self.info.resize)
        )

    def length(self, row: Tensor) -> int:
        return 1

    def collate(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (torch.stack(list(rows)),)

    def record(self, item: Item, outputs: Sequence[Tensor], *, top_k: int | None = None) -> Record:
        probabilities = outputs[0].softmax(dim=-1)
        best = probabilities.topk(min(top_k or TOP_K, len(self.labels)))
        top = [
            {"label": self.labels[number], "probability": round(value, 6)}
            for value, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return {"source": item.source, **top[0], "top": top}

    def table_rows(self, record: Record) -> list[Record]:
        row = {"source": record["source"]}
        for rank, one in enumerate(record["top"], 1):
            suffix = "" if rank == 1 else f"_{rank}"
            row |= {f"label{suffix}": one["label"], f"probability{suffix}": one["probability"]}
        return [row]


def channels_last(pixels: Any) -> Any:
    """Returns uint8 pixels as PIL takes them, (H, W) or (H, W, C); raises ValueError for other arrays."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"an array of {pixels.dtype} {tuple(pixels.shape)} is not an image: uint8 (H, W, C) is")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f"an array of {tuple(pixels.shape)} is not an image: it needs 1, 3 or 4 channels")
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
