"""Data info as plain values and back; what a checkpoint of anybody may hold instead is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from arclight.data.info import from_plain, to_plain
from arclight.errors import InputError
from arclight.images.info import ImageInfo
from arclight.interfaces import DataInfo
from arclight.text.info import TokenInfo

IMAGES = ImageInfo(channels=3, height=32, width=24, classes=("cat", "dog"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
TOKENS = TokenInfo(labels=("O", "B-PER", "I-PER"), tokenizer="{}", vocab_size=9, pad_id=0, max_length=16)


@pytest.mark.parametrize("data_info", [IMAGES, TOKENS])
def test_a_spec_survives_a_checkpoint(data_info: DataInfo) -> None:
    file = io.BytesIO()
    torch.save(to_plain(data_info), file)
    file.seek(0)
    assert from_plain(torch.load(file, weights_only=True)) == data_info


@pytest.mark.parametrize(
    ("data_info", "values", "message"),
    [
        (IMAGES, {"kind": "os.getcwd"}, r"data_info\.kind: _target_ 'os\.getcwd' is outside"),
        (IMAGES, {"kind": "arclight.images.info.ImageBatch"}, r"data_info\.kind: .*ImageBatch is not a DataInfo"),
        (IMAGES, {"kind": None}, r"data_info\.kind: _target_ 'None' is outside"),
        (IMAGES, {"height": "32"}, r"data_info\.height='32' must be a whole number"),
        (IMAGES, {"classes": ["cat", 5]}, r"data_info\.classes=\('cat', 5\) must be a list"),
        (IMAGES, {"classes": []}, r"data_info\.classes is empty"),
        (IMAGES, {"channels": 0}, r"data_info\.channels=0 must be 1 or more"),
        (IMAGES, {"mean": [0.5]}, r"data_info\.mean=\(0\.5,\) must be one finite number for each of 3 channels"),
        (IMAGES, {"std": [0.5, 0.5, float("nan")]}, r"data_info\.std=.* must be one finite number"),
        (
            IMAGES,
            {"extra": 1, "mean": 5},
            r"2 errors:\n  .*mean=5 must be a list.*\n  data_info\.extra: ImageInfo has no such field",
        ),
        (TOKENS, {"labels": ["B-PER", "O"]}, r"data_info\.labels=.* must be IOB2 tags, O first"),
        (TOKENS, {"labels": ["O", "PER"]}, r"data_info\.labels=.* must be IOB2 tags, O first"),
        (TOKENS, {"pad_id": 9}, r"data_info\.pad_id=9 must be one of the 9 ids"),
        (TOKENS, {"max_length": 0}, r"data_info\.max_length=0 must be 1 or more"),
    ],
)
def test_other_values_are_refused(data_info: DataInfo, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_plain({**to_plain(data_info), **values})


def test_a_missing_field_is_named() -> None:
    plain = to_plain(TOKENS)
    del plain["vocab_size"]
    with pytest.raises(InputError, match=r"^data_info\.vocab_size is missing$"):
        from_plain(plain)
