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
from arclight.images.info import ImageInfo
from arclight.inference.pipeline import BadItem, Item, pipeline_for, read_items
from arclight.inference.predictor import BATCHES_READ, Predictor
from arclight.interfaces import DataInfo
from arclight.text.info import TokenInfo
from arclight.text.tokenizer import train_wordpiece

IMAGES = ImageInfo(channels=3, height=4, width=4, classes=("red", "green", "blue"), mean=(0.5,) * 3, std=(0.5,) * 3)


def predictor(module: LightningModule, info: DataInfo | None = None, **options: Any) -> Predictor:
    settings: dict[str, Any] = {"trainer": {"accelerator": "cpu"}, "hardware": {}, "data": {}, "model": {}}
    return Predictor(Restored(module, info, settings, "data", "model", Path("best.ckpt")), **options)


def predict(used: Predictor, sources: Any, **options: Any) -> list[Any]:
    return list(used.predict(read_items(used.pipeline, sources), **options))


class MeanColour(LightningModule):
    """Logits are the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


class ById(LightningModule):
    """The tag of a subword depends on its id alone."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 9.0 * torch.nn.functional.one_hot(input_ids % 3, 3)


def filled(channel: int) -> Any:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[..., channel] = 3
    return image


def test_images_keep_their_order_and_bad_ones_their_place() -> None:
    records = predict(predictor(MeanColour(), IMAGES, batch_size=2), [filled(2), filled(0), "missing.png", filled(1)], top_k=2)
    assert [getattr(one, "problem", None) or one["label"] for one in records] == ["blue", "red", "no such file", "green"]
    assert records[0]["source"] == "item 1"
    assert [one["label"] for one in records[0]["top"]] == ["blue", "red"]
    assert records[0]["probability"] == pytest.approx(torch.tensor([0.0, 0, 3]).softmax(0)[2].item(), abs=1e-6)


def test_a_module_may_predict_by_another_method_than_forward() -> None:
    class Inverted(MeanColour):
        def predict_forward(self, images: Tensor) -> Tensor:
            return -self(images)

    assert predict(predictor(Inverted(), IMAGES), [filled(0)])[0]["top"][2]["label"] == "red"


def test_memory_is_bounded_on_a_stream() -> None:
    num_read = 0

    def stream() -> Iterator[Any]:
        nonlocal num_read
        for _ in range(1000):
            num_read += 1
            yield filled(0)

    used = predictor(MeanColour(), IMAGES, batch_size=2)
    next(used.predict(read_items(used.pipeline, stream())))
    assert num_read <= 2 * BATCHES_READ


def text_info(max_length: int) -> TokenInfo:
    words = [f"w{number}" for number in range(30)] + ["."]
    tokenizer = train_wordpiece(words, vocab_size=300)
    text = tokenizer.to_str()
    return TokenInfo(labels=("O", "B-A", "I-A"), tokenizer=text, vocab_size=300, pad_id=0, max_length=max_length)


def test_long_sentences_are_predicted_in_windows_as_if_whole() -> None:
    words = [f"w{number % 30}" for number in range(150)]
    whole, cut = (predict(predictor(ById(), text_info(length)), [words])[0] for length in (512, 12))
    assert whole == cut
    assert len(whole["tags"]) == 150
    used = predictor(ById(), text_info(12))
    (item,) = used.pipeline.read(words, "text")
    assert isinstance(item, Item)
    assert all(used.pipeline.length(row) <= 12 for row in item.rows)
    assert sorted(word for _, window in item.rows for word in window.words) == list(range(150))
    middles = [window.positions for _, window in item.rows[1:-1]]
    assert all(min(positions) > 1 and max(positions) < 10 for positions in middles), "words at the edge of a window"


def test_entities_have_the_places_of_the_text() -> None:
    text = "  w1 w2 w3.\n\nw4,w5 "
    record = predict(predictor(ById(), text_info(64)), [text], top_k=2)[0]
    assert [text[start:end] for start, end in record["offsets"]] == record["words"]
    assert record["entities"]
    for entity in record["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert record["tags"][entity["first_word"]] == f"B-{entity['type']}" or record["tags"][entity["first_word"]][0] == "I"
    assert [len(one) for one in record["top"]] == [2] * len(record["words"])
    assert record["sentences"] == [[0, 4], [4, 7]]


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
    class Large(MeanColour):
        def forward(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(InputError, match="batch_size=8 needs more memory than cpu has; choose a smaller one"):
        predict(predictor(Large(), IMAGES, batch_size=8), [filled(0)])


@pytest.mark.parametrize(("device", "message"), [("cuda:9", "is not on this machine"), ("gpu7", "must be auto, cpu, cuda")])
def test_a_device_that_is_not_there(device: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor(MeanColour(), IMAGES, device=device)
    with pytest.raises(InputError, match="batch_size=0 must be 1 or more"):
        predictor(MeanColour(), IMAGES, batch_size=0)


@pytest.mark.parametrize("num_words", [1, 9, 10, 11, 15, 16, 25, 101])
@pytest.mark.parametrize("max_length", [3, 4, 9, 12])
def test_every_word_is_predicted_where_it_has_most_context(num_words: int, max_length: int) -> None:
    words = ["w1"] * num_words  # one subword each
    (item,) = predictor(ById(), text_info(max_length)).pipeline.read(words, "text")
    assert isinstance(item, Item)
    assert sorted(word for _, window in item.rows for word in window.words) == list(range(num_words))
    room = max_length - 2
    for _, window in item.rows:
        for word, position in zip(window.words, window.positions, strict=True):
            before, after = position - 1, len(window.ids) - 2 - position
            needed = min(room // 4, word, num_words - 1 - word)
            assert min(before, after) >= needed or before == word or after == num_words - 1 - word
