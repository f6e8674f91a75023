"""A trained model over items: order, bad items, devices, bounded memory. Covers arclight.inference.tensors, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.checkpoint.contents import Restored
from arclight.errors import InputError
from arclight.inference.pipeline import BadItem, pipeline_for, read_items
from arclight.inference.predictor import BATCHES_READ, Predictor
from arclight.interfaces import DataInfo


def predictor(module: LightningModule, info: DataInfo | None = None, **options: Any) -> Predictor:
    settings: dict[str, Any] = {"trainer": {"accelerator": "cpu"}, "hardware": {}, "data": {}, "model": {}}
    return Predictor(Restored(module, info, settings, "data", "model", Path("best.ckpt")), **options)


def predict(used: Predictor, sources: Any, **options: Any) -> list[Any]:
    return list(used.predict(read_items(used.pipeline, sources), **options))


class Sum(LightningModule):
    example_input_array = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))

    def forward(self, values: Tensor, number: Tensor) -> dict[str, Tensor]:
        return {"sum": values.sum(1) + number}


class Doubled(LightningModule):
    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return 2 * batch


def test_tensors(tmp_path: Path) -> None:
    used = predictor(Sum())
    np.savez(tmp_path / "a.npz", number=np.array([1, 2]), values=np.ones((2, 3)))
    (tmp_path / "b.json").write_text('{"values": [[1, 2, 3]], "number": [4]}')
    (tmp_path / "c.jsonl").write_text('{"values": [1, 2, 3], "number": 4}\n{"values": [0, 0, 0], "number": 1}\n')
    records = predict(used, [tmp_path / "a.npz", tmp_path / "b.json", tmp_path / "c.jsonl", (np.ones((1, 3)), np.array([7]))])
    assert [one["output"]["sum"] for one in records] == [4, 5, 10, 10, 1, 10]
    assert records[1]["source"] == f"{tmp_path / 'a.npz'}:2"
    assert used.pipeline.table_rows(records[0]) == [{"source": f"{tmp_path / 'a.npz'}:1", "output_sum": 4.0}]


def test_order_bad_items_and_bounded_memory() -> None:
    num_read = 0

    def stream() -> Iterator[Any]:
        nonlocal num_read
        for number in range(1000):
            num_read += 1
            yield "no array" if number == 1 else np.full((1, 2), number)

    used = predictor(Doubled(), batch_size=2)
    records = used.predict(read_items(used.pipeline, stream()))
    assert next(records) == {"source": "item 1:1", "output": [0, 0]}
    assert isinstance(next(records), BadItem)
    assert next(records) == {"source": "item 3:1", "output": [4, 4]}
    assert num_read <= 2 * BATCHES_READ + 1
    assert len(list(records)) == 997


def test_a_module_may_predict_by_another_method_than_forward() -> None:
    class Inverted(LightningModule):
        def forward(self, values: Tensor) -> Tensor:
            return values

        def predict_forward(self, values: Tensor) -> Tensor:
            return -self(values)

    assert predict(predictor(Inverted()), [np.ones((1, 2))])[0]["output"] == [-1, -1]


def test_predict_step_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4.5\n")
    np.save(tmp_path / "a.npy", np.ones((1, 2)))
    records = predict(predictor(Doubled()), [tmp_path])
    assert [one["output"] for one in records] == [[2, 4], [6, 9], [2, 2]]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"values": np.ones((2, 4)), "number": np.ones(2, dtype=int)}, r"rows of size \[4\], the model takes \[3\]"),
        ({"values": np.ones((2, 3)), "number": np.ones(2)}, "number holds fractions, the model takes torch.int64"),
        ({"values": np.ones((2, 3)), "number": np.ones(1, dtype=int)}, "the inputs have 2, 1 rows"),
        ({"values": np.ones((2, 3))}, "has no number; the model takes values, number"),
        (np.ones((2, 3)), "holds 1 array, the model takes values, number"),
        (b"a,b\n1,x\n", "no CSV of numbers"),
        ({"values": np.array(["a"]), "number": [1]}, "not rows of numbers"),
        (b"", "is empty"),
    ],
)
def test_tensors_that_do_not_fit(source: Any, problem: str) -> None:
    (bad,) = pipeline_for(Sum(), None).read(source, "item 1")
    assert isinstance(bad, BadItem)
    assert re.search(problem, bad.problem), bad.problem


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    (bad,) = pipeline_for(Doubled(), None).read(tmp_path / "a.npy", "a.npy")
    assert isinstance(bad, BadItem)


def test_tensors_that_the_model_refuses() -> None:
    class Linear(LightningModule):
        def forward(self, values: Tensor) -> Tensor:
            return values @ torch.ones(3, 1)

    with pytest.raises(InputError, match="the model does not take these tensors: .*shapes.*; set self.example_input_array"):
        predict(predictor(Linear()), [np.ones((2, 4))])
    with pytest.raises(InputError, match=r"the model does not take these tensors: stack expects each tensor"):
        predict(predictor(Linear()), [np.ones((1, 3)), np.ones((1, 4))])


def test_a_batch_that_is_too_large_for_the_device() -> None:
    class Large(LightningModule):
        def forward(self, values: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(InputError, match="batch_size=8 needs more memory than cpu has; choose a smaller one"):
        predict(predictor(Large(), batch_size=8), [np.ones((1, 2))])


@pytest.mark.parametrize(("device", "message"), [("cuda:9", "is not on this machine"), ("gpu7", "must be auto, cpu, cuda")])
def test_a_device_that_is_not_there(device: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor(Doubled(), device=device)
    with pytest.raises(InputError, match="batch_size=0 must be 1 or more"):
        predictor(Doubled(), batch_size=0)
