"""The tagger has the same losses, gradients and predictions however the sentences are packed into batches."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import arclight
from arclight.data.samplers import BatchIndices, Shard
from arclight.hardware import Decision
from arclight.metrics.predictions import PredictionCollector
from arclight.optim.schedulers import constant
from arclight.text.datamodule import TokenLoader
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.packing import EvenSampler
from arclight.text.sentences import Sentence
from arclight.text.subwords import Subwords
from project.data.synthetic_text import SyntheticText
from project.lightning_modules.token_tagger import TokenTagger
from project.models.bert_tagger import BertTagger

SGD: Any = functools.partial(torch.optim.SGD, lr=0.1)
WHOLE = BatchIndices(torch.arange(16), torch.arange(16), 0, 0)


@pytest.fixture(scope="module")
def data() -> SyntheticText:
    made = SyntheticText(num_train=40, num_val=4, num_test=4, vocab_size=300, max_length=64)
    made.prepare_data()
    made.setup("fit")
    return made


@pytest.fixture
def tagger(data: SyntheticText) -> TokenTagger:
    assert isinstance(data.data_info, TokenInfo)
    torch.manual_seed(0)
    net = BertTagger(data.data_info, checkpoint=None, hidden_size=32, dropout=0)
    torch.nn.init.normal_(net.head.weight, std=2.0)  # so that not all is predicted alike
    return TokenTagger(data.data_info, net=net, make_optimizer=SGD, scheduler=constant)


@pytest.fixture
def subwords(data: SyntheticText) -> Subwords:
    assert isinstance(data.data_info, TokenInfo)
    return Subwords(data.sentences("train"), data.data_info)


def gradients(tagger: TokenTagger, *batches: TokenBatch) -> tuple[float, dict[str, torch.Tensor]]:
    tagger.zero_grad()
    losses = [tagger.training_step(batch) / len(batches) for batch in batches]
    loss = torch.stack(losses).sum()
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in tagger.net.named_parameters()}


def test_packed_rows_give_the_loss_and_gradients_of_padded_ones(tagger: TokenTagger, subwords: Subwords) -> None:
    loss, expected = gradients(tagger, subwords.batch(WHOLE))
    packed_loss, found = gradients(tagger, subwords.batch(WHOLE, tokens_per_row=64))
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_two_processes_give_the_gradients_of_one(tagger: TokenTagger, subwords: Subwords) -> None:
    loss, expected = gradients(tagger, subwords.batch(WHOLE, tokens_per_row=64))
    halves = [subwords.batch(WHOLE._replace(indices=WHOLE.whole[at : at + 8], offset=at), 64) for at in (0, 8)]
    assert len({batch.num_tokens for batch in halves}) == 2  # uneven, and yet the mean of the two is that of the whole
    found_loss, found = gradients(tagger, *halves)
    assert found_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("shard", [Shard(world_size=2), Shard(accumulation_steps=2), Shard(world_size=2, accumulation_steps=2)])
def test_micro_batches_of_one_shape_give_the_whole_gradients(tagger: TokenTagger, subwords: Subwords, shard: Shard) -> None:
    parts: list[TokenBatch] = []
    for rank in range(shard.world_size):
        order = EvenSampler(subwords.lengths, 16, seed=0, shard=replace(shard, rank=rank))
        loader = TokenLoader(subwords, order, tokens_per_row=96, shape=order.shape(96))
        parts += list(loader)[-shard.accumulation_steps :]  # the last batch, which has fewer sentences than the others may
    assert len({part.input_ids.shape for part in parts}) == 1
    every = torch.cat([part.indices for part in parts])
    loss, expected = gradients(tagger, subwords.batch(BatchIndices(every, every, 0, 0)))
    found_loss, found = gradients(tagger, *parts)
    assert found_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("takes_them", [True, False])
def test_a_net_need_not_take_boundaries(data: SyntheticText, subwords: Subwords, takes_them: bool) -> None:
    assert isinstance(data.data_info, TokenInfo)
    given: list[int] = []

    class Plain(torch.nn.Linear):
        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any = None) -> Any:  # type: ignore[override]
            given.append(3)
            return super().forward(input_ids[..., None].float())

    class Knowing(torch.nn.Linear):
        def forward(  # type: ignore[override]
            self, input_ids: Any, attention_mask: Any, position_ids: Any = None, boundaries: Any = None
        ) -> Any:
            given.append(3 + (boundaries is not None))
            return super().forward(input_ids[..., None].float())

    net = (Knowing if takes_them else Plain)(1, len(data.data_info.labels))
    module = TokenTagger(data.data_info, net=net, make_optimizer=SGD, scheduler=constant)
    module.training_step(subwords.batch(WHOLE, tokens_per_row=64))
    module.update_metrics(subwords.batch(WHOLE, tokens_per_row=64))
    assert given == [3 + takes_them] * 2


@pytest.mark.parametrize(
    ("packing", "precision", "dtype"),
    [
        ("fixed", "bf16-mixed", torch.bfloat16),
        ("rows", "16-mixed", torch.float16),
        ("rows", "bf16-true", torch.bfloat16),
        ("rows", "32-true", torch.float32),
        ("rows", 32, torch.float32),
        ("buckets", "bf16-mixed", None),
    ],
)
def test_the_attention_is_chosen_for_device_and_precision_and_logged(
    tagger: TokenTagger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    packing: str,
    precision: Any,
    dtype: torch.dtype | None,
) -> None:
    asked: list[tuple[torch.device, torch.dtype]] = []
    monkeypatch.setattr(
        BertTagger, "choose_attention", lambda net, *given: [asked.append(given), Decision(False, "because of a test")][1]
    )
    device = torch.device("cuda", 1)
    tagger.trainer = SimpleNamespace(  # type: ignore[assignment]
        datamodule=SimpleNamespace(packing=packing), precision=precision, strategy=SimpleNamespace(root_device=device)
    )
    with caplog.at_level("INFO"):
        tagger.on_fit_start()
    assert asked == ([] if dtype is None else [(device, dtype)])
    assert ("attention in packed rows: because of a test" in caplog.text) is (dtype is not None)


def test_packed_rows_have_the_metrics_of_padded_ones(tagger: TokenTagger, subwords: Subwords) -> None:
    tagger.eval()
    scores, predictions = [], []
    for batch in (subwords.batch(WHOLE), subwords.batch(WHOLE, tokens_per_row=64)):
        collector = PredictionCollector(tagger.labels, tagger.record_type)
        with torch.no_grad():
            tagger.update_metrics(batch, collector)
        scores.append(tagger.compute_metrics())
        predictions.append(list(collector.gather(None)))
        for metric in (tagger.entities, tagger.confusion, tagger.loss_sum, tagger.num_losses):
            metric.reset()
    assert scores[1].counts == scores[0].counts
    assert scores[1].metrics == pytest.approx(scores[0].metrics, abs=1e-5)
    assert [(one.index, one.labels, one.predicted) for one in predictions[1]] == [
        (one.index, one.labels, one.predicted) for one in predictions[0]
    ]
    assert len({tag for one in predictions[0] for tag in one.predicted}) > 1


def test_a_window_is_predicted_sentence_by_sentence(tagger: TokenTagger, data: SyntheticText) -> None:
    assert isinstance(data.data_info, TokenInfo)
    tagger.eval()
    pair = [sentence._replace(document=0) for sentence in data.sentences("train")[:2]]
    windows = Subwords(pair, data.data_info, in_windows=True)
    assert len(windows) == 1
    joined = Subwords([Sentence(pair[0].words + pair[1].words, pair[0].tags + pair[1].tags)], data.data_info)
    rows = BatchIndices(torch.tensor([0]), torch.tensor([0]), 0, 0)
    first, second = tagger.predict_words(windows.batch(rows))
    (both,) = tagger.predict_words(joined.batch(rows))
    lengths = [len(sentence.words) for sentence in pair]
    assert torch.cat([first[: lengths[0]], second[: lengths[1]]]).tolist() == both.tolist()


def test_a_run_in_packed_rows_learns_what_one_in_padded_ones_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = [
        "data.num_train=64",
        "data.num_val=32",
        "data.num_test=32",
        "model.num_hidden_layers=1",
        "model.hidden_size=16",
        "model.dropout=0",
    ]
    common = ["experiment=demo_tagger", "precision=fp32", "trainer.max_epochs=2", "optimizer.lr=1e-2", *sizes]
    padded, packed = (arclight.run([*common, f"data.packing={packing}"]) for packing in ("none", "rows"))
    expected = padded.model.net.state_dict()
    for name, weight in packed.model.net.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-3, rtol=1e-2, msg=name)
    scores = ("test/f1", "test/precision", "test/recall", "test/accuracy", "val/f1")
    assert [packed.results[key] for key in scores] == pytest.approx([padded.results[key] for key in scores])
    assert packed.results["train/tflops"] > 0
    shares = [packed.results[f"train/{part}_share"] for part in ("data_wait", "forward_backward", "optimizer", "logging")]
    assert sum(shares) == pytest.approx(1)
