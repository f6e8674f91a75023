from __future__ import annotations

import json
import logging
import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from arclight.data.samplers import BatchIndices, EvalSampler, Shard, TrainSampler
from arclight.errors import InputError
from arclight.images.info import ImageInfo
from arclight.interfaces import IGNORE_INDEX
from arclight.text.datamodule import BucketSampler, TokenDataModule, TokenLoader
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.sentences import Sentence
from arclight.text.subwords import Subwords
from arclight.text.tokenizer import load_tokenizer

LABELS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
# ids in conftest's vocabulary of single letters
PAD, UNK, CLS, SEP = range(4)
A, D, INNER_B, INNER_C, INNER_E = 5, 8, 59, 60, 62


def sentence(words: str, tags: str, line: int = 1) -> Sentence:
    return Sentence(tuple(words.split(" ")), tuple(tags.split()), 0, "made.txt", line)


def rows(*indices: int) -> BatchIndices:
    return BatchIndices(torch.tensor(indices), torch.tensor(indices), 0, 0)


@pytest.fixture(scope="module")
def data_info(bert_folder: Path) -> TokenInfo:
    tokenizer, pad_id = load_tokenizer(str(bert_folder), max_length=12)
    return TokenInfo(labels=LABELS, tokenizer=tokenizer.to_str(), vocab_size=111, pad_id=pad_id, max_length=12)


def random_sentences(number: int, seed: int = 0) -> list[Sentence]:
    stream = random.Random(seed)
    return [
        Sentence(
            tuple("".join(stream.choices("abcd", k=stream.randint(1, 4))) for _ in range(length)),
            tuple(stream.choice(LABELS) for _ in range(length)),
        )
        for length in (stream.randint(1, 9) for _ in range(number))
    ]


def test_a_word_has_its_label_on_its_first_subword(data_info: TokenInfo) -> None:
    subwords = Subwords([sentence("abc d1 de", "B-PER I-PER O"), sentence("a", "B-LOC")], data_info)
    batch = subwords.batch(rows(0, 1))
    assert batch.input_ids.tolist() == [[CLS, A, INNER_B, INNER_C, UNK, D, INNER_E, SEP], [CLS, A, SEP, *[PAD] * 5]]
    assert batch.attention_mask.tolist() == [[1] * 8, [1] * 3 + [0] * 5]
    none = IGNORE_INDEX
    assert batch.labels.tolist() == [[none, 2, none, none, 4, 0, none, none], [none, 1, *[none] * 6]]
    assert batch.word_starts.tolist() == [[1, 4, 5], [1, -1, -1]]
    assert batch.word_labels.tolist() == [[2, 4, 0], [1, none, none]]
    assert batch.indices.tolist() == [0, 1]
    assert (batch.num_tokens, batch.num_labelled) == (11, 4.0)
    assert (subwords.num_truncated, subwords.num_empty) == (0, 0)
    assert all(tensor.dtype == torch.int64 for tensor in batch[:6])


@pytest.mark.parametrize(
    ("max_length", "ids", "starts", "num_cut"),
    [
        (8, [CLS, A, INNER_B, INNER_C, D, INNER_E, A, SEP], [1, 4, 6], 0),
        (7, [CLS, A, INNER_B, INNER_C, D, INNER_E, SEP], [1, 4, -1], 1),
        (6, [CLS, A, INNER_B, INNER_C, D, SEP], [1, 4, -1], 1),  # in the middle of a word, which is not cut off by that
        (5, [CLS, A, INNER_B, INNER_C, SEP], [1, -1, -1], 2),
        (3, [CLS, A, SEP], [1, -1, -1], 2),
    ],
)
def test_truncation_keeps_the_last_special_token_and_every_gold_label(
    data_info: TokenInfo,
    caplog: pytest.LogCaptureFixture,
    max_length: int,
    ids: list[int],
    starts: list[int],
    num_cut: int,
) -> None:
    short = TokenInfo(**{**vars(data_info), "max_length": max_length})
    with caplog.at_level(logging.WARNING):
        subwords = Subwords([sentence("abc de a", "B-PER I-PER B-LOC")], short)
    batch = subwords.batch(rows(0))
    assert batch.input_ids.tolist() == [ids]
    assert batch.word_starts.tolist() == [starts]
    assert batch.word_labels.tolist() == [[2, 4, 1]]
    assert (batch.labels != IGNORE_INDEX).sum() == batch.num_labelled == 3 - num_cut
    assert (subwords.num_truncated, subwords.num_empty) == (num_cut, 0)
    message = f"{num_cut} words of made.txt are beyond data.max_length={max_length} and count as predicted O"
    assert [record.message for record in caplog.records] == ([message] if num_cut else [])


def test_a_word_of_control_characters_has_no_subword_but_keeps_its_label(data_info: TokenInfo) -> None:
    subwords = Subwords([sentence("a \u200b d", "B-PER I-PER O"), sentence("\u200b", "B-LOC")], data_info)
    batch = subwords.batch(rows(0, 1))
    assert batch.input_ids.tolist() == [[CLS, A, D, SEP], [CLS, SEP, PAD, PAD]]
    assert batch.word_starts.tolist() == [[1, -1, 2], [-1, -1, -1]]
    assert batch.word_labels.tolist() == [[2, 4, 0], [1, IGNORE_INDEX, IGNORE_INDEX]]
    assert (subwords.num_truncated, subwords.num_empty) == (0, 2)
    assert batch.num_labelled == 2
    assert subwords.batch(rows(1)).num_labelled == 1  # no loss is divided by zero


def test_words_cut_off_and_words_of_nothing_are_counted_apart(data_info: TokenInfo) -> None:
    short = TokenInfo(**{**vars(data_info), "max_length": 4})
    subwords = Subwords([sentence("a \u200b d abc \u200b", "O O O O O")], short)
    assert (subwords.num_truncated, subwords.num_empty) == (2, 1)


def test_random_sentences_agree_with_the_tokenizer_word_by_word(data_info: TokenInfo) -> None:
    sentences = random_sentences(60)
    subwords = Subwords(sentences, data_info)
    tokenizer = Tokenizer.from_str(data_info.tokenizer)
    for row, made in enumerate(sentences):
        batch = subwords.batch(rows(row))
        position, pieces = 1, [CLS]
        for number, word in enumerate(made.words):
            start = int(batch.word_starts[0, number])
            assert start == (position if position < data_info.max_length - 1 else -1)
            assert batch.word_labels[0, number] == LABELS.index(made.tags[number])
            ids = tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids
            pieces += ids
            position += len(ids)
        assert batch.input_ids[0].tolist() == [*pieces[: data_info.max_length - 1], SEP]


def test_a_row_that_fills_the_batch_is_padding_that_no_attention_chokes_on(data_info: TokenInfo, bert_folder: Path) -> None:
    from transformers import BertModel

    subwords = Subwords([sentence("abc", "B-PER"), sentence("a d", "O O")], data_info)
    batch = subwords.batch(BatchIndices(torch.tensor([1, -1]), torch.tensor([1, -1]), 0, 0))
    assert batch.input_ids.tolist() == [[CLS, A, D, SEP], [PAD] * 4]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.labels[1].tolist() == [IGNORE_INDEX] * 4
    assert batch.word_starts[1].tolist() == [-1, -1]
    assert batch.word_labels[1].tolist() == [IGNORE_INDEX, IGNORE_INDEX]
    assert batch.indices.tolist() == [1, -1]
    assert (batch.num_tokens, batch.num_labelled) == (4, 2.0)
    net = BertModel.from_pretrained(bert_folder, add_pooling_layer=False).eval()
    assert net(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state.isfinite().all()


def test_a_part_of_nothing_but_filling_is_still_a_batch(data_info: TokenInfo) -> None:
    subwords = Subwords([sentence("abc", "B-PER")], data_info)
    batch = subwords.batch(BatchIndices(torch.tensor([-1]), torch.tensor([0, -1]), 1, 0))
    assert (batch.input_ids.tolist(), batch.attention_mask.tolist()) == ([[PAD]], [[1]])
    assert (batch.word_starts.tolist(), batch.word_labels.tolist()) == ([[-1]], [[IGNORE_INDEX]])
    assert (batch.num_tokens, batch.num_labelled) == (0, 0.5)


def content(batch: TokenBatch) -> list[tuple[Any, ...]]:
    """The rows of a batch without their padding."""
    found = []
    for row in range(len(batch.indices)):
        if batch.indices[row] >= 0:
            length, words = int(batch.attention_mask[row].sum()), int((batch.word_labels[row] != IGNORE_INDEX).sum())
            parts = (batch.input_ids[row, :length], batch.labels[row, :length])
            parts += (batch.word_starts[row, :words], batch.word_labels[row, :words])
            found.append((int(batch.indices[row]), *(tuple(part.tolist()) for part in parts)))
    return found


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_all_processes_and_parts_together_take_what_one_takes(data_info: TokenInfo, world_size: int, accumulation: int) -> None:
    subwords = Subwords(random_sentences(45), data_info)
    alone = list(TokenLoader(subwords, BucketSampler(subwords.lengths, 8, seed=3)))
    shares = [
        list(TokenLoader(subwords, BucketSampler(subwords.lengths, 8, seed=3, shard=Shard(rank, world_size, accumulation))))
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {5 * accumulation}
    for step, whole in enumerate(alone):
        parts = [shares[rank][step * accumulation + part] for part in range(accumulation) for rank in range(world_size)]
        assert [row for part in parts for row in content(part)] == content(whole)
        assert sum(part.num_tokens for part in parts) == whole.num_tokens == int(whole.attention_mask.sum())
        assert whole.num_labelled == int((whole.labels != IGNORE_INDEX).sum()) == int((whole.word_starts >= 0).sum())
        assert {part.num_labelled for part in parts} == {whole.num_labelled / len(parts)}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("number", [1, 5, 8, 13, 16])
def test_evaluation_covers_each_sentence_once_whatever_the_number(data_info: TokenInfo, number: int, world_size: int) -> None:
    subwords = Subwords(random_sentences(number), data_info)
    by_length = torch.argsort(subwords.lengths, stable=True)
    loaders = [TokenLoader(subwords, EvalSampler(by_length, 4, shard=Shard(rank, world_size))) for rank in range(world_size)]
    assert len({len(loader) for loader in loaders}) == 1
    batches = [list(loader) for loader in loaders]
    assert {len(share) for share in batches} == {len(loaders[0])}
    seen = [int(index) for share in batches for batch in share for index in batch.indices if index >= 0]
    assert sorted(seen) == list(range(number))
    labelled = sum(batch.num_labelled for share in batches for batch in share)
    assert labelled == pytest.approx(int(subwords.num_labelled.sum()))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = torch.randint(3, 60, (200,), generator=torch.Generator().manual_seed(0))

    def batches(seed: int, epoch: int) -> list[list[int]]:
        order = BucketSampler(lengths, 8, seed=seed)
        order.set_epoch(epoch)
        return order.batches().tolist()

    assert batches(0, 1) == batches(0, 1)
    different = [batches(0, 0), batches(0, 1), batches(1, 0), batches(1, 1)]
    assert all(one != other for i, one in enumerate(different) for other in different[:i])


@pytest.mark.parametrize(("number", "batch_size"), [(200, 8), (203, 8), (5, 5), (7, 1), (1000, 3)])
def test_each_sentence_at_most_once_and_all_but_the_remainder(number: int, batch_size: int) -> None:
    order = BucketSampler(torch.arange(number) % 17 + 1, batch_size, seed=0)
    batches = order.batches()
    assert batches.shape == (number // batch_size, batch_size)
    assert len(set(batches.flatten().tolist())) == number // batch_size * batch_size


def test_inside_a_window_batches_do_not_overlap_in_length_and_come_in_random_order() -> None:
    lengths = torch.randint(3, 100, (400,), generator=torch.Generator().manual_seed(0))
    ranges = [(int(lengths[batch].min()), int(lengths[batch].max())) for batch in BucketSampler(lengths, 8, seed=0).batches()]
    in_order = sorted(ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(in_order))
    assert ranges != in_order


def test_sentences_of_all_lengths_meet_across_windows() -> None:
    lengths = torch.arange(100 * 8) // 8 + 1
    order = BucketSampler(lengths, 8, seed=0)
    shortest_half = [bool((lengths[batch] <= 50).all()) for batch in order.batches()]
    assert 0 < sum(shortest_half[:50]) < 50  # neither half of the epoch is short sentences alone
    assert 0 < sum(shortest_half[50:]) < 50


def test_little_of_a_bucketed_batch_is_padding(data_info: TokenInfo) -> None:
    subwords = Subwords(random_sentences(1600), TokenInfo(**{**vars(data_info), "max_length": 64}))

    def useful(order: TrainSampler | EvalSampler) -> float:
        batches = list(TokenLoader(subwords, order))
        return sum(batch.num_tokens for batch in batches) / sum(batch.input_ids.numel() for batch in batches)

    assert useful(BucketSampler(subwords.lengths, 16, seed=0)) > 0.95
    assert useful(TrainSampler(1600, 16, seed=0)) < 0.65
    assert useful(EvalSampler(torch.argsort(subwords.lengths, stable=True), 16)) > 0.95


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_that_stops_inside_an_epoch_resumes_with_the_next_batch(data_info: TokenInfo, accumulation: int) -> None:
    subwords = Subwords(random_sentences(45), data_info)

    def loader() -> TokenLoader:
        fresh = TokenLoader(subwords, BucketSampler(subwords.lengths, 8, seed=0, shard=Shard(accumulation_steps=accumulation)))
        fresh.sampler.set_epoch(2)
        return fresh

    whole = [batch.indices.tolist() for batch in loader()]
    first = loader()
    stream = iter(first)
    begun = [next(stream).indices.tolist() for _ in range(2 * accumulation)]  # complete steps, as a run saves
    again = loader()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + [batch.indices.tolist() for batch in again] == whole
    assert [batch.indices.tolist() for batch in again] == whole  # the next pass is a whole one


def test_an_evaluation_loader_has_no_position_to_save(data_info: TokenInfo) -> None:
    subwords = Subwords(random_sentences(5), data_info)
    loader = TokenLoader(subwords, EvalSampler(torch.arange(5), 2))
    next(iter(loader))
    assert loader.state_dict() == {}
    loader.load_state_dict({})
    assert [batch.indices.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]


TRAIN = [sentence("Ada met Bob", "B-PER O B-PER"), sentence("in New Delhi .", "O B-LOC I-LOC O", 5)] * 6
VAL = [sentence("Bob .", "B-PER O"), sentence("in a Delhi", "O O B-LOC", 4)]
TEST = [sentence("Ada Lovelace met", "B-PER I-PER O")]


class Made(TokenDataModule):
    """Sentences from memory; counts how often each split is read."""

    def __init__(
        self, *, val: list[Sentence] = VAL, test: list[Sentence] = TEST, train: list[Sentence] = TRAIN, **changes: Any
    ):
        options: dict[str, Any] = {"tokenizer": None, "vocab_size": 80, "max_length": 32, "batch_size": 4, "eval_batch_size": 2}
        super().__init__(root=None, **{**options, "max_batch_per_device": None, "seed": 0, **changes})
        self.made = {"train": train, "val": val, "test": test}
        self.num_read = dict.fromkeys(self.made, 0)

    def read(self, split: str) -> list[Sentence]:
        self.num_read[split] += 1
        return self.made[split]


def test_fit_gives_training_and_validation_batches_and_the_spec() -> None:
    data = Made()
    data.prepare_data()
    data.setup("fit")
    data_info = data.data_info
    assert isinstance(data_info, TokenInfo)
    assert data_info.labels == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")  # I-PER though training never has it
    assert (data_info.pad_id, data_info.max_length) == (0, 32)
    assert data_info.vocab_size == Tokenizer.from_str(data_info.tokenizer).get_vocab_size()
    assert (data.num_train, data.steps_per_epoch, data.sizes) == (12, 3, {"train": 12, "val": 2})
    train, val = data.train_dataloader(), data.val_dataloader()
    assert (len(train), len(val)) == (3, 1)
    assert [len(batch.indices) for batch in train] == [4, 4, 4]
    (batch,) = val
    words = [data.sentences("val")[row].words for row in batch.indices.tolist()]
    assert words == [("Bob", "."), ("in", "a", "Delhi")]  # shortest first, and words can be had by row
    assert data.num_read == {"train": 1, "val": 1, "test": 1}


def test_test_sentences_become_subwords_only_for_the_test() -> None:
    data = Made()
    data.setup("fit")
    assert data.num_read["test"] == 0
    data.setup("test")
    assert data.sizes == {"train": 12, "val": 2, "test": 1}
    (batch,) = data.test_dataloader()
    assert batch.word_labels.tolist() == [[2, 4, 0]]


def test_a_test_alone_needs_no_fit_before() -> None:
    data = Made()
    data.setup("test")
    assert data.sizes == {"test": 1}
    assert len(list(data.test_dataloader())) == 1


def test_a_model_that_is_restored_brings_its_labels_and_tokenizer(data_info: TokenInfo) -> None:
    data = Made(tokenizer="/nowhere")
    data.data_info = data_info
    data.prepare_data()
    data.setup("fit")
    assert data.data_info is data_info
    (batch,) = data.val_dataloader()
    assert batch.input_ids[0].tolist()[:2] == [CLS, Tokenizer.from_str(data_info.tokenizer).token_to_id("B")]


def test_a_label_that_the_restored_model_does_not_have_is_reported(data_info: TokenInfo) -> None:
    data = Made(train=[sentence("Ada", "B-ORG")] * 8)
    data.data_info = data_info
    with pytest.raises(InputError, match=r"made\.txt:1: these entity types do not occur in training, .*ORG \("):
        data.prepare_data()
    with pytest.raises(InputError, match=r"made\.txt:1: these entity types do not occur in training, .*ORG \("):
        data.setup("fit")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_missing_in_training_is_reported_before_training(split: str) -> None:
    data = Made(**{split: [sentence("Ada", "B-PER"), sentence("met Acme", "O B-ORG", 3)]})
    with pytest.raises(InputError, match=r"made\.txt:4: these entity types do not occur in training, which has LOC, PER: ORG"):
        data.prepare_data()


def test_training_without_any_entity_is_reported() -> None:
    with pytest.raises(InputError, match=r"made\.txt: holds no entity, every tag is O; is data\.tag_column right"):
        Made(train=[sentence("a b", "O O")] * 8).prepare_data()


def test_a_model_for_images_is_no_model_for_text() -> None:
    data = Made()
    data.data_info = ImageInfo(channels=1, height=2, width=2, classes=("a",), mean=(0.0,), std=(1.0,))
    with pytest.raises(InputError, match="the model was not trained on tagged text, but Made"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, r"data\.vocab_size=0 must be 1 or more"),
        ({"max_length": 2}, r"data\.max_length=2 must be 3 or more"),
        ({"eval_batch_size": 0}, r"data\.eval_batch_size=0 must be 1 or more"),
        ({"batch_size": 0}, r"data\.batch_size=0 must be 1 or more"),
    ],
)
def test_numbers_out_of_range(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Made(**changes)


def test_an_encoder_that_is_not_there_is_reported_before_training() -> None:
    with pytest.raises(InputError, match=r"data\.tokenizer=\./nowhere: no such directory"):
        Made(tokenizer="./nowhere").prepare_data()


def test_the_tokenizer_of_an_encoder_is_taken(bert_folder: Path) -> None:
    data = Made(tokenizer=str(bert_folder))
    data.setup("fit")
    assert isinstance(data.data_info, TokenInfo)
    assert (data.data_info.vocab_size, data.data_info.pad_id) == (111, 0)


def test_evaluation_takes_no_more_than_a_device_holds() -> None:
    assert Made(eval_batch_size=64, max_batch_per_device=2).eval_batch_size == 2
    assert Made(eval_batch_size=64).eval_batch_size == 64


def test_each_process_of_a_trainer_takes_its_share() -> None:
    shares = []
    for rank in range(2):
        data = Made(val=VAL * 3)
        data.setup("fit")
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, accumulate_grad_batches=2, overfit_batches=0.0, strategy=strategy
        )
        train, val = data.train_dataloader(), data.val_dataloader()
        assert (len(train), len(val)) == (6, 2)
        shares.append(([batch.indices.tolist() for batch in train], [batch.indices.tolist() for batch in val]))
    assert all(len(part) == 1 for share, _ in shares for part in share)
    assert sorted(row for share, _ in shares for part in share for row in part) == list(range(12))
    assert sorted(row for _, share in shares for part in share for row in part) == list(range(6))
