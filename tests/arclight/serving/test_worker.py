"""What a worker answers, with a small model in this process."""

from __future__ import annotations

import json

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.serving.worker import answer
from tests.arclight.inference.test_predictor import predictor


class Reciprocal(LightningModule):
    """1 / x of each number; refuses 7 with the whole batch that it is in."""

    example_input_array = torch.ones(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        if (x == 7).any():
            raise RuntimeError("seven")
        return 1 / x


def test_each_file_gets_its_records_and_a_bad_one_its_error() -> None:
    header = {"names": ["a.json", "b", "c.json"], "kinds": ["file"] * 3, "top_k": 1}
    found = answer(predictor(Reciprocal()), header, [b"[[2, 4], [1, 1]]", b"none", b"[[1, 2]]"])
    assert [[record.get("output") for record in records] for records in found] == [
        [[0.5, 0.25], [1.0, 1.0]],
        [None],
        [[1.0, 0.5]],
    ]
    assert found[1][0]["source"] == "b"
    assert "not rows of numbers of equal length" in found[1][0]["error"]


def test_rows_of_numbers_are_json_and_what_json_lacks_is_null() -> None:
    header = {"names": ["a", "b"], "kinds": ["json"] * 2, "top_k": None}
    found = answer(predictor(Reciprocal()), header, [b"[2, 4]", b'{"x": [0, -1]}'])
    assert [records[0]["output"] for records in found] == [[0.5, 0.25], [None, -1.0]]
    json.dumps(found, allow_nan=False)


def test_an_input_that_the_model_fails_on_does_not_fail_its_batch() -> None:
    header = {"names": ["a", "b", "c"], "kinds": ["json"] * 3, "top_k": None}
    found = answer(predictor(Reciprocal()), header, [b"[1, 2]", b"[7, 1]", b"[[1]]"])
    assert found[0][0]["output"] == [1.0, 0.5]
    assert found[1][0]["error"].startswith("the model does not take these tensors: seven")
    assert "error" in found[2][0]
