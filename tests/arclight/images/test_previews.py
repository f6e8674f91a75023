from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from arclight.images.previews import MAX_PREVIEWS, encode_png, first_rows_of_classes, summarize_images
from arclight.text.previews import summarize_sentences


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGB")])
def test_a_preview_is_a_png_of_the_same_pixels(channels: int, mode: str) -> None:
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    with Image.open(io.BytesIO(base64.b64decode(encode_png(image)))) as decoded:
        assert (decoded.mode, decoded.format, decoded.size) == (mode, "PNG", (7, 5))
        pixels = np.atleast_3d(np.asarray(decoded))
    assert (torch.tensor(pixels).permute(2, 0, 1) == image[: pixels.shape[2]]).all()


def test_large_previews_are_shrunk() -> None:
    with Image.open(io.BytesIO(base64.b64decode(encode_png(torch.zeros(3, 100, 400, dtype=torch.uint8))))) as decoded:
        assert decoded.size == (128, 32)


def test_rows_of_each_class() -> None:
    assert first_rows_of_classes(torch.tensor([1, 0, 1, 0]), 2) == [1, 3, 0, 2]
    assert len(first_rows_of_classes(torch.arange(100), 100)) == MAX_PREVIEWS


def test_summary_of_images() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    dataset_summary = summarize_images({"train": (images, torch.tensor([0, 1, 1]))}, ("cat", "dog"))
    assert dataset_summary["counts"] == {"train": {"cat": 1, "dog": 2}}
    assert [sample["label"] for sample in dataset_summary["samples"]] == ["cat", "dog", "dog"]


def test_summary_of_sentences() -> None:
    train = [(("a", "b"), ("O", "O")), (("c", "d", "e"), ("B-PER", "I-PER", "B-LOC"))]
    dataset_summary = summarize_sentences({"train": train, "test": []})
    assert dataset_summary["counts"] == {"train": {"LOC": 1, "PER": 1}, "test": {}}
    assert dataset_summary["lengths"] == {"train": {"2": 1, "3": 1}, "test": {}}
    assert dataset_summary["samples"] == [{"words": ["c", "d", "e"], "labels": ["B-PER", "I-PER", "B-LOC"]}]
