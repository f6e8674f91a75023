"""Long sentences are predicted in overlapping windows, each word where it has most context."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.inference.pipeline import Item
from arclight.text.info import TokenInfo
from arclight.text.tokenizer import train_wordpiece
from tests.arclight.inference.test_predictor import predict, predictor


class ById(LightningModule):
    """The tag of a subword depends on its id alone."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 9.0 * torch.nn.functional.one_hot(input_ids % 3, 3)


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
