"""FLOPs compared with those computed by hand."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from arclight.callbacks.flops import count_flops, count_useful
from arclight.images.info import ImageBatch, ImageInfo
from arclight.optim.schedulers import constant
from arclight.text.info import TokenInfo, one_sentence
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger
from project.models.bert_tagger import BertTagger
from project.models.cnn import Cnn

TOKENS = TokenInfo(labels=("O", "B-PER", "I-PER"), tokenizer="{}", vocab_size=90, pad_id=0, max_length=128)
IMAGES = ImageInfo(channels=3, height=8, width=8, classes=("cat", "dog"), mean=(0.5,) * 3, std=(0.2,) * 3)
SGD: Any = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture
def tagger() -> TokenTagger:
    return TokenTagger(TOKENS, net=BertTagger(TOKENS, checkpoint=None), make_optimizer=SGD, scheduler=constant)


def test_a_subword_costs_its_weights_and_each_pair_its_attention(tagger: TokenTagger) -> None:
    batch = one_sentence(5, torch.device("cpu"))
    width, layers = 128, 2
    weights = layers * 12 * width**2 + width * 3  # those that multiply: four of attention, two four times as wide, the head
    # forward and, twice as much, backward; an addition and a multiplication for each weight; two products for each pair
    assert count_useful(tagger, batch) == {"tokens": 3 * 2 * weights, "pairs": 3 * 2 * 2 * width * layers}


def test_two_lengths_predict_any_other(tagger: TokenTagger) -> None:
    useful = count_useful(tagger, one_sentence(5, torch.device("cpu")))
    assert useful is not None
    for length in (3, 100):
        counted = count_flops(tagger, one_sentence(length, torch.device("cpu")))
        assert counted == pytest.approx(useful["tokens"] * length + useful["pairs"] * length**2)


def test_counting_changes_nothing(tagger: TokenTagger) -> None:
    before = {name: weight.clone() for name, weight in tagger.state_dict().items()}
    tagger.eval()
    random = torch.get_rng_state()
    count_useful(tagger, one_sentence(5, torch.device("cpu")))
    assert torch.equal(torch.get_rng_state(), random)
    assert not tagger.training
    assert all(torch.equal(weight, before[name]) for name, weight in tagger.state_dict().items())
    assert all(weight.grad is None and weight.device.type == "cpu" for weight in tagger.parameters())


def test_an_image_costs_the_same_in_any_batch() -> None:
    module = ImageClassifier(IMAGES, net=Cnn(IMAGES), make_optimizer=SGD, scheduler=constant)
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    batch = ImageBatch(images, torch.zeros(6, dtype=torch.int64), torch.arange(6))
    useful = count_useful(module, batch)
    assert useful is not None
    assert useful["samples"] > 0
    assert count_flops(module, ImageBatch(*(part[:1] for part in batch))) == useful["samples"]


def test_a_net_that_cannot_be_counted_gives_none(tagger: TokenTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(TokenTagger, "training_step", lambda self, batch: fail(batch))
    assert count_useful(tagger, one_sentence(5, torch.device("cpu"))) is None
