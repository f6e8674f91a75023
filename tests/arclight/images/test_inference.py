"""Images of any size, mode and origin become what the model takes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.images.inference import ImagePipeline
from arclight.images.info import ImageInfo
from arclight.inference.pipeline import BadItem, Item
from tests.arclight.inference.test_predictor import predict, predictor

INFO = ImageInfo(channels=3, height=4, width=6, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
COLOURS = replace(INFO, width=4, classes=("red", "green", "blue"))
GREY = replace(INFO, channels=1, mean=(0.5,), std=(0.5,))


def read(source: Any, info: ImageInfo = INFO) -> Any:
    """Returns the pixels, or the problem."""
    (one,) = ImagePipeline(info).read(source, "x")
    return one.problem if isinstance(one, BadItem) else one.rows[0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
@pytest.mark.parametrize("info", [INFO, GREY])
def test_modes(mode: str, info: ImageInfo) -> None:
    pixels = read(PIL.Image.new("RGB" if mode in ("CMYK", "YCbCr") else "L", (50, 30), "white").convert(mode), info)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (info.channels, 4, 6))
    assert pixels.min() >= 254


def test_a_file_its_bytes_and_its_image_are_the_same(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    image.save(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    path = tmp_path / "a.png"
    for source in (path, str(path), path.read_bytes(), image, np.array(image), expected):
        assert torch.equal(read(source), expected)


def test_bad_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    large = io.BytesIO()
    PIL.Image.new("1", (10_000, 10_000)).save(large, "PNG")
    half = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(half, "PNG")
    for source, problem in {
        tmp_path / "empty.png": "is empty (0 bytes)",
        tmp_path / "text.png": "not a readable image",
        tmp_path / "none.png": "no such file",
        tmp_path: "not a file",
        large.getvalue(): "more than 89,478,485 pixels; shrink it",
        half.getvalue()[:2000]: "truncated",
        3: "int is not an image; give a path, bytes, a PIL image or a uint8 array",
    }.items():
        assert problem in read(source), source
    assert "an array of float64 (4, 4) is not an image" in read(np.zeros((4, 4)))
    assert "it needs 1, 3 or 4 channels" in read(np.zeros((5, 5, 5), dtype=np.uint8))
    assert "2 channels" in read(PIL.Image.new("L", (4, 4)), replace(INFO, channels=2, mean=(0.5,) * 2, std=(0.5,) * 2))


def test_top_k() -> None:
    pipeline = ImagePipeline(INFO)
    (item,) = pipeline.read(PIL.Image.new("L", (4, 4)), "x")
    assert isinstance(item, Item)
    record = pipeline.record(item, [torch.tensor([0.0, 1.0])], top_k=9)
    assert [one["label"] for one in record["top"]] == ["b", "a"]
    assert sum(one["probability"] for one in record["top"]) == pytest.approx(1, abs=1e-5)


class MeanColour(LightningModule):
    """Logits are the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


def filled(channel: int) -> Any:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[..., channel] = 3
    return image


def test_images_keep_their_order_and_bad_ones_their_place() -> None:
    records = predict(predictor(MeanColour(), COLOURS, batch_size=2), [filled(2), filled(0), "missing.png", filled(1)], top_k=2)
    assert [getattr(one, "problem", None) or one["label"] for one in records] == ["blue", "red", "no such file", "green"]
    assert records[0]["source"] == "item 1"
    assert [one["label"] for one in records[0]["top"]] == ["blue", "red"]
    assert records[0]["probability"] == pytest.approx(torch.tensor([0.0, 0, 3]).softmax(0)[2].item(), abs=1e-6)
