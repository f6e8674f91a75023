"""What a worker answers, with a small model in this process."""

from __future__ import annotations

import io
import json

import PIL.Image
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.serving.worker import answer
from tests.arclight.inference.test_predictor import IMAGES, MeanColour, filled, predictor


def png(channel: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(filled(channel) * 80).save(file, "PNG")
    return file.getvalue()


def test_each_input_gets_its_records_and_a_bad_one_its_error() -> None:
    header = {"names": ["a.png", "b", "c.png"], "kinds": ["file"] * 3, "top_k": 1}
    found = answer(predictor(MeanColour(), IMAGES), header, [png(2), b"none", png(0)])
    assert [records[0].get("label") for records in found] == ["blue", None, "red"]
    assert found[1] == [{"source": "b", "error": "not a readable image"}]


class Reciprocal(LightningModule):
    """1 / x of each number; refuses 7 with the whole batch that it is in."""

    example_input_array = torch.ones(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        if (x == 7).any():
            raise RuntimeError("seven")
        return 1 / x


def test_rows_of_numbers_are_json_and_what_json_lacks_is_null() -> None:
    header = {"names": ["a", "b"], "kinds": ["json"] * 2, "top_k": None}
    found = answer(predictor(Reciprocal()), header, [b"[2, 4]", b'{"x": [0, -1]}'])
    assert [records[0]["output"] for records in found] == [[0.5, 0.25], [None, -1.0]]
    json.dumps(found, allow_nan=False)


def test_an_input_that_the_model_fails_on_does_not_fail_its_batch() -> None:
    header = {"names": ["a", "b", "c"], "kinds": ["json"] * 3, "top_k": None}
    found = answer(predictor(Reciprocal()), header, [b"[1, 2]", b"[7, 1]", b"[[1]]"])
    assert found[0][0]["output"] == [1.0, 0.5]
    assert found[1][0]["error"] == "the model failed on it (RuntimeError)"
    assert "error" in found[2][0]
