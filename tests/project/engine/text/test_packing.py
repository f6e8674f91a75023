"""Texts that share rows and windows: nothing lost, nothing doubled, nothing mixed, on any number of processes."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight.data.samplers import BatchIndices, EvalSampler, Shard
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.text.datamodule import TokenLoader
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.packing import (
    BucketSampler,
    EvenSampler,
    Shape,
    TextSampler,
    common_shape,
    deal,
    fill_rows,
    lay_out,
    window_sizes,
)
from arclight.text.sentences import Sentence
from arclight.text.subwords import Subwords
from arclight.text.tokenizer import load_tokenizer
from project.data.conll2003 import Conll2003
from project.data.synthetic_text import SyntheticText

LABELS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


@pytest.fixture(scope="module")
def data_info(bert_folder: Path) -> TokenInfo:
    tokenizer, pad_id = load_tokenizer(str(bert_folder), max_length=20)
    return TokenInfo(labels=LABELS, tokenizer=tokenizer.to_str(), vocab_size=111, pad_id=pad_id, max_length=20)


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    """Some longer than 20 subwords; documents of 1 to 6 sentences; a word of nothing here and there."""
    stream = random.Random(0)
    made = []
    for document in range(20):
        for _ in range(stream.randint(1, 6)):
            words = tuple(stream.choice(("a", "abc", "bd", "\u200b")) for _ in range(stream.randint(1, 9)))
            made.append(Sentence(words, tuple(stream.choice(LABELS) for _ in words), document))
    return made


def whole(*indices: int) -> BatchIndices:
    return BatchIndices(torch.tensor(indices), torch.tensor(indices), 0, 0)


def texts(batch: TokenBatch) -> list[tuple[list[int], list[int], list[int]]]:
    """Subwords, labels and positions of each text in the batch, in the order of rows."""
    assert batch.position_ids is not None
    found = []
    for row in range(len(batch.input_ids)):
        numbers = batch.attention_mask[row]
        for number in range(1, int(numbers.max()) + 1):
            at = numbers == number
            found.append(
                (batch.input_ids[row][at].tolist(), batch.labels[row][at].tolist(), batch.position_ids[row][at].tolist())
            )
    return found


def words_of(batch: TokenBatch) -> dict[int, tuple[list[int], list[int]]]:
    """By sentence: its words' labels and the subwords that they begin with, -1 where none."""
    found = {}
    for number, index in enumerate(batch.indices.tolist()):
        if index >= 0:
            row = number if batch.rows is None else int(batch.rows[number])
            real = batch.word_labels[number] != IGNORE_INDEX
            starts = batch.word_starts[number][real]
            first = torch.where(starts >= 0, batch.input_ids[row][starts.clamp(min=0)], -1)
            assert torch.equal(batch.labels[row][starts[starts >= 0]], batch.word_labels[number][real][starts >= 0])
            found[index] = (batch.word_labels[number][real].tolist(), first.tolist())
    return found


# rows


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([4, 8, 2, 6], 10, [[1, 2], [3, 0]]),
        ([5, 5, 5, 5], 10, [[0, 2], [1, 3]]),  # those of one length keep their order
        ([3, 3, 2, 2, 2], 6, [[0, 1], [2, 3, 4]]),  # dealt to the emptiest, a row would hold 7
        ([9, 3, 2, 1], 14, [[0], [1, 2, 3]]),  # 9 and 6, where first fit would have 14 and 1
        ([3], 10, [[0]]),
        ([0, 10, 0], 10, [[1, 0, 2]]),  # what only fills the batch takes no room
    ],
)
def test_few_rows_and_about_equally_full(lengths: list[int], capacity: int, rows: list[list[int]]) -> None:
    assert fill_rows(lengths, capacity) == rows


def test_no_row_is_too_full_and_every_text_has_one() -> None:
    stream = random.Random(0)
    for _ in range(100):
        lengths = [stream.randint(1, 60) for _ in range(stream.randint(1, 40))]
        rows = fill_rows(lengths, 64)
        assert sorted(chain.from_iterable(rows)) == list(range(len(lengths)))
        assert max(sum(lengths[piece] for piece in row) for row in rows) <= 64
        assert len(rows) <= 11 / 9 * -(-sum(lengths) // 64) + 2


def test_rows_are_no_wider_than_the_fullest() -> None:
    layout = lay_out(torch.tensor([3, 2, 4]), torch.tensor([1, 4, 6]), 6)
    assert layout.sources.tolist() == [[6, 7, 8, 9, 0], [1, 2, 3, 4, 5]]
    assert layout.segments.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 2, 2]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
    assert (layout.rows.tolist(), layout.starts.tolist()) == ([1, 1, 0], [0, 3, 0])
    assert lay_out(torch.tensor([3, 2]), torch.tensor([1, 4]), 512).sources.shape == (1, 5)


def test_boundaries_leave_no_place_to_nobody() -> None:
    layout = lay_out(torch.tensor([3, 2, 4, 0]), torch.tensor([1, 4, 6, 1]), 6)
    assert layout.boundaries.tolist() == [0, 4, 5, 8, 10, 10, 10]  # 4 and padding, 3 and 2, and 7 = 4 pieces + 2 rows + 1
    assert layout.boundaries.dtype == torch.int32
    stream = random.Random(0)
    for _ in range(50):
        lengths = torch.tensor([stream.randint(0, 30) for _ in range(stream.randint(1, 12))])
        layout = lay_out(lengths, torch.arange(len(lengths)), 32, Shape(len(lengths) + 1, 32))
        assert len(layout.boundaries) == len(lengths) + len(lengths) + 1 + 1
        flat, texts_of = layout.boundaries.tolist(), layout.segments.flatten().tolist()
        assert (flat[0], flat[-1]) == (0, layout.segments.numel())
        assert flat == sorted(flat)
        for start, end in pairwise(flat):  # one text or one stretch of padding, within one row
            assert len(set(texts_of[start:end])) <= 1
            assert start == end or start // 32 == (end - 1) // 32
        for before, at in pairwise(range(len(texts_of))):  # and each place where the text changes is one
            assert texts_of[before] == texts_of[at] or at in flat


# one shape for all steps


@pytest.mark.parametrize(
    ("lengths", "num_hands", "hands"),
    [
        ([9, 1, 8, 2], 2, [[0, 1], [2, 3]]),  # 10 and 10
        ([5, 5, 5, 5], 2, [[0, 2], [1, 3]]),
        ([7, 0, 0], 3, [[0], [1], [2]]),
        ([4, 3], 1, [[0, 1]]),
    ],
)
def test_dealt_out_evenly(lengths: list[int], num_hands: int, hands: list[list[int]]) -> None:
    assert deal(torch.tensor([lengths]), num_hands).tolist() == [hands]


def test_all_parts_fit_the_common_shape_and_a_smaller_one_would_not_do() -> None:
    parts = torch.tensor([[20, 12, 0], [11, 11, 10]])
    assert common_shape(parts, 32) == Shape(1, 32)
    assert common_shape(parts, 24) == Shape(2, 24)  # 20 and 12; 11 + 11 and 10
    assert common_shape(torch.zeros(1, 2, dtype=torch.int64), 24) == Shape(1, 8)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (2, 2)])
def test_every_sentence_once_in_each_epoch_and_always_one_shape(
    data_info: TokenInfo, sentences: list[Sentence], world_size: int, accumulation: int
) -> None:
    subwords = Subwords(sentences, data_info)
    shapes, batches_of = set(), []
    for rank in range(world_size):
        order = EvenSampler(subwords.lengths, 8, seed=3, shard=Shard(rank, world_size, accumulation))
        assert order.num_steps == -(-len(sentences) // 8)
        loader = TokenLoader(subwords, order, tokens_per_row=40, shape=order.shape(40))
        for epoch in range(4):
            order.set_epoch(epoch)
            for number, batch in enumerate(loader):
                assert batch.boundaries is not None
                shapes.add((batch.input_ids.shape, batch.boundaries.shape, len(batch.indices)))
                batches_of.append((epoch, number // accumulation, batch))
    assert len(shapes) == 1
    for epoch in range(4):
        seen = [index for own, _, batch in batches_of if own == epoch for index in batch.indices.tolist() if index >= 0]
        assert sorted(seen) == list(range(len(sentences)))
    alone = EvenSampler(subwords.lengths, 8, seed=3)
    for epoch in range(4):
        alone.set_epoch(epoch)
        for rows in alone:  # the same sentences in each step, on any number of processes, and weighed alike
            parts = [batch for own, step, batch in batches_of if (own, step) == (epoch, rows.step)]
            assert sorted(chain.from_iterable(part.indices.tolist() for part in parts)) == sorted(rows.whole.tolist())
            whole_batch = subwords.batch(rows)
            assert {part.num_labelled * len(parts) for part in parts} == {whole_batch.num_labelled}
            assert sum(part.num_tokens for part in parts) == whole_batch.num_tokens


def test_epochs_differ_and_a_seed_is_a_seed() -> None:
    lengths = torch.randint(3, 30, (200,), generator=torch.Generator().manual_seed(0))
    epochs = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        order = EvenSampler(lengths, 16, seed=seed)
        order.set_epoch(epoch)
        epochs.append([sorted(rows.indices.tolist()) for rows in order])
    assert epochs[0] == epochs[3]
    for one, other in ((0, 1), (0, 2)):
        assert not set(map(tuple, epochs[one])) & set(map(tuple, epochs[other]))  # no batch comes back as it was
    sums = [int(lengths[[index for index in batch if index >= 0]].sum()) for batch in epochs[0]]
    assert max(sums) - min(sums) <= 30  # and all are about equally long


def test_a_run_in_one_shape_stops_and_resumes_with_the_same_rows(data_info: TokenInfo, sentences: list[Sentence]) -> None:
    subwords = Subwords(sentences, data_info)

    def fresh() -> TokenLoader:
        order = EvenSampler(subwords.lengths, 8, seed=0, shard=Shard(accumulation_steps=2))
        order.set_epoch(1)
        return TokenLoader(subwords, order, tokens_per_row=40, shape=order.shape(40))

    loader = fresh()
    expected = [batch.input_ids.tolist() for batch in loader]
    running = iter(loader)
    for _ in range(4):
        next(running)
    again = fresh()
    again.load_state_dict(loader.state_dict())
    assert [batch.input_ids.tolist() for batch in again] == expected[4:]


def test_the_data_module_counts_the_steps_of_one_shape(caplog: pytest.LogCaptureFixture) -> None:
    data = SyntheticText(packing="fixed", num_train=70, num_val=1, num_test=1, batch_size=16, max_length=64, tokens_per_row=128)
    data.prepare_data()
    data.setup("fit")
    with caplog.at_level(logging.INFO):
        loader = data.train_dataloader()
    assert len(loader) == data.steps_per_epoch == 5
    assert loader.shape is not None
    assert {batch.input_ids.shape for batch in loader} == {tuple(loader.shape)}
    found = re.search(r"data.packing=fixed: (\d+) rows of (\d+) positions in each micro-batch, (\d+) % text", caplog.text)
    assert found is not None
    assert [int(found[1]), int(found[2])] == list(loader.shape)
    tokens = sum(batch.num_tokens for batch in loader)
    assert int(found[3]) == round(100 * tokens / (5 * loader.shape.rows * loader.shape.width)) > 80


def test_a_packed_batch_holds_the_same_sentences(data_info: TokenInfo, sentences: list[Sentence]) -> None:
    subwords = Subwords(sentences, data_info)
    rows = whole(*range(16))
    plain, packed = subwords.batch(rows), subwords.batch(rows, tokens_per_row=40)
    kept = plain.attention_mask.bool()
    expected = [(ids[on].tolist(), labels[on].tolist()) for ids, labels, on in zip(*plain[:1], plain.labels, kept, strict=True)]
    assert sorted(text[:2] for text in texts(packed)) == sorted(expected)
    assert all(positions == list(range(len(ids))) for ids, _, positions in texts(packed))
    assert words_of(packed) == words_of(plain)
    assert packed.indices.tolist() == plain.indices.tolist()
    same = ("num_tokens", "num_labelled", "num_pairs")
    assert [getattr(packed, name) for name in same] == [getattr(plain, name) for name in same]
    assert packed.num_pairs == sum(int(length) ** 2 for length in plain.attention_mask.sum(dim=1))
    assert packed.input_ids.shape[1] <= 40
    assert packed.input_ids.numel() < plain.input_ids.numel()


def test_a_packed_part_of_nothing_but_filling_is_still_a_batch(data_info: TokenInfo, sentences: list[Sentence]) -> None:
    batch = Subwords(sentences, data_info).batch(
        BatchIndices(torch.tensor([-1, -1]), torch.tensor([0, 1, -1, -1]), 2, 0), tokens_per_row=40
    )
    assert (batch.input_ids.tolist(), batch.attention_mask.tolist()) == ([[data_info.pad_id]], [[0]])
    assert batch.word_labels.tolist() == [[IGNORE_INDEX], [IGNORE_INDEX]]
    assert (batch.num_tokens, batch.num_pairs) == (0, 0)


@pytest.mark.parametrize("in_windows", [False, True])
@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 2), (2, 2)])
def test_all_processes_and_parts_together_take_what_one_takes(
    data_info: TokenInfo, sentences: list[Sentence], world_size: int, accumulation: int, in_windows: bool
) -> None:
    subwords = Subwords(sentences, data_info, in_windows=in_windows)

    def loader(rank: int, size: int, parts: int) -> list[TokenBatch]:
        order = TextSampler(subwords.lengths, 8, seed=3, shard=Shard(rank, size, parts))
        return list(TokenLoader(subwords, order, tokens_per_row=48))

    alone = loader(0, 1, 1)
    shares = [loader(rank, world_size, accumulation) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        parts = [shares[rank][step * accumulation + part] for part in range(accumulation) for rank in range(world_size)]
        assert sorted(chain.from_iterable(map(texts, parts))) == sorted(texts(batch))
        assert [index for part in parts for index in part.indices.tolist()] == batch.indices.tolist()
        assert sum(part.num_labelled for part in parts) == batch.num_labelled == int((batch.labels != IGNORE_INDEX).sum())
        assert {part.num_labelled for part in parts} == {batch.num_labelled / len(parts)}


def test_a_run_that_stops_inside_an_epoch_resumes_with_the_same_rows(data_info: TokenInfo, sentences: list[Sentence]) -> None:
    subwords = Subwords(sentences, data_info)

    def loader() -> TokenLoader:
        fresh = TokenLoader(subwords, TextSampler(subwords.lengths, 8, seed=0), tokens_per_row=40)
        fresh.sampler.set_epoch(2)
        return fresh

    expected = [batch.input_ids.tolist() for batch in loader()]
    first = loader()
    stream = iter(first)
    begun = [next(stream).input_ids.tolist() for _ in range(3)]
    again = loader()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + [batch.input_ids.tolist() for batch in again] == expected


# windows


@pytest.mark.parametrize(
    ("lengths", "documents", "sizes"),
    [
        ([4, 4, 4, 4], [0, 0, 0, 0], [2, 2]),
        ([4, 4, 4, 4], [0, 1, 1, 2], [1, 2, 1]),
        ([12, 1, 1], [0, 0, 0], [1, 2]),  # too long for any window: truncated in one of its own
        ([5, 5, 1], [0, 0, 0], [2, 1]),
    ],
)
def test_a_window_is_filled_and_ends_with_its_document(lengths: list[int], documents: list[int], sizes: list[int]) -> None:
    assert window_sizes(lengths, documents, 10) == sizes


def test_a_window_is_its_sentences_between_one_pair_of_special_tokens(data_info: TokenInfo) -> None:
    pair = [Sentence(("abc", "a"), ("B-PER", "O")), Sentence(("d",), ("B-LOC",))]
    batch = Subwords(pair, data_info, in_windows=True).batch(whole(0))
    both = Subwords([Sentence(("abc", "a", "d"), ("B-PER", "O", "B-LOC"))], data_info).batch(whole(0))
    assert torch.equal(batch.input_ids, both.input_ids)
    assert torch.equal(batch.labels, both.labels)
    assert batch.indices.tolist() == [0, 1]
    assert batch.word_starts.tolist() == [[1, 4], [5, -1]]
    assert batch.word_labels.tolist() == [[2, 0], [1, IGNORE_INDEX]]
    assert batch.rows is not None
    assert batch.rows.tolist() == [0, 0]
    assert batch.position_ids is None  # one text: its sentences see each other


@pytest.mark.parametrize("tokens_per_row", [None, 48])
def test_every_sentence_and_word_stands_in_one_window(
    data_info: TokenInfo, sentences: list[Sentence], tokens_per_row: int | None
) -> None:
    alone, windows = Subwords(sentences, data_info), Subwords(sentences, data_info, in_windows=True)
    assert len(windows) < len(alone) == len(sentences)
    assert (windows.num_truncated, windows.num_empty) == (alone.num_truncated, alone.num_empty)
    expected = words_of(alone.batch(whole(*range(len(sentences)))))
    order = EvalSampler(torch.argsort(windows.lengths, stable=True), 4)
    found = [words_of(batch) for batch in TokenLoader(windows, order, tokens_per_row=tokens_per_row)]
    assert sum(map(len, found)) == len(sentences)
    assert dict(chain.from_iterable(batch.items() for batch in found)) == expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_in_windows_covers_each_sentence_once(
    data_info: TokenInfo, sentences: list[Sentence], world_size: int
) -> None:
    windows = Subwords(sentences, data_info, in_windows=True)
    rows = torch.arange(len(windows))
    loaders = [TokenLoader(windows, EvalSampler(rows, 4, shard=Shard(rank, world_size))) for rank in range(world_size)]
    seen = [index for loader in loaders for batch in loader for index in batch.indices.tolist() if index >= 0]
    assert sorted(seen) == list(range(len(sentences)))


def test_documents_of_conll_2003_become_windows(conll_folder: Path) -> None:
    data = Conll2003(str(conll_folder), context="document", batch_size=4, packing="rows")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.sizes == {"train": 24, "val": 3, "test": 3}
    assert data.num_train == 16  # documents, all of them shorter than a window
    assert data.steps_per_epoch == 4
    assert sorted(index for batch in data.train_dataloader() for index in batch.indices.tolist()) == list(range(24))
    (batch,) = data.test_dataloader()
    assert sorted(batch.indices.tolist()) == [0, 1, 2]
    assert len(batch.input_ids) == 2


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": "full"}, "data.packing=full must be one of none, buckets, rows"),
        (
            {"packing": "fixed", "tokens_per_row": 64, "max_length": 128},
            "data.tokens_per_row=64 is less than data.max_length=128; set data.tokens_per_row=128",
        ),
        (
            {"packing": "rows", "tokens_per_row": 64, "max_length": 128},
            "data.tokens_per_row=64 is less than data.max_length=128; set data.tokens_per_row=128",
        ),
    ],
)
def test_a_wrong_setting_is_reported(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticText(**settings)  # type: ignore[arg-type]


def test_an_unknown_context_is_reported(conll_folder: Path) -> None:
    with pytest.raises(InputError, match="data.context=page must be one of sentence, document"):
        Conll2003(str(conll_folder), context="page")  # type: ignore[arg-type]


def test_the_shuffled_order_pads_what_comes() -> None:
    data = SyntheticText(packing="none", num_train=64, num_val=1, num_test=1)
    data.prepare_data()
    data.setup("fit")
    assert type(data.train_dataloader().sampler) is TextSampler
    assert next(iter(data.train_dataloader())).position_ids is None


# whatever the lengths


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(30, 50))
def test_every_piece_stands_once_in_its_row_and_sees_itself_alone(lengths: list[int], capacity: int) -> None:
    sizes = torch.tensor(lengths)
    offsets = sizes.cumsum(0) - sizes + 1
    layout = lay_out(sizes, offsets, capacity)
    assert sorted(chain.from_iterable(fill_rows(lengths, capacity))) == list(range(len(lengths)))
    assert 1 <= layout.sources.shape[1] <= capacity
    taken = torch.zeros_like(layout.sources, dtype=torch.bool)
    for piece, size in enumerate(lengths):
        at = slice(int(layout.starts[piece]), int(layout.starts[piece]) + size)
        row = int(layout.rows[piece])
        assert not taken[row, at].any()
        taken[row, at] = True
        assert layout.sources[row, at].tolist() == list(range(int(offsets[piece]), int(offsets[piece]) + size))
        assert layout.position_ids[row, at].tolist() == list(range(size))
        if size:
            number = layout.segments[row, at].unique().tolist()
            assert len(number) == 1
            assert int((layout.segments[row] == number[0]).sum()) == size
    assert not layout.segments[~taken].any()


@given(
    st.lists(st.integers(1, 60), min_size=4, max_size=200),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.integers(0, 99),
    st.sampled_from([TextSampler, BucketSampler]),
)
def test_every_text_once_an_epoch_on_any_number_of_processes(
    lengths: list[int], world_size: int, accumulation: int, seed: int, make: type[TextSampler]
) -> None:
    batch, sizes = 4 * accumulation, torch.tensor(lengths)
    if batch > len(lengths):
        return
    alone = [rows.indices.tolist() for rows in make(sizes, batch, seed=seed)]
    seen = list(chain.from_iterable(alone))
    assert len(seen) == len(set(seen)) == len(lengths) // batch * batch
    ranks = [list(make(sizes, batch, seed=seed, shard=Shard(rank, world_size, accumulation))) for rank in range(world_size)]
    for step, rows in enumerate(alone):
        parts = sorted((part.offset, part.indices.tolist()) for own in ranks for part in own if part.step == step)
        assert list(chain.from_iterable(part for _, part in parts)) == rows


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=40), st.integers(3, 20))
def test_windows_keep_their_budget_and_their_document(sentences: list[tuple[int, bool]], capacity: int) -> None:
    lengths, documents = [length for length, _ in sentences], list(itertools.accumulate(int(begins) for _, begins in sentences))
    sizes = window_sizes(lengths, documents, capacity)
    assert sum(sizes) == len(sentences)
    first = 0
    for size in sizes:
        own = slice(first, first + size)
        assert size == 1 or sum(lengths[own]) <= capacity
        assert len(set(documents[own])) == 1
        first += size


@settings(max_examples=15)
@given(st.data())
def test_words_come_back_from_their_subwords(data_info: TokenInfo, data: st.DataObject) -> None:
    letters = st.text(st.sampled_from("abcDEF.\u200b\u00e9\u65e5 "), min_size=1, max_size=9)
    texts = data.draw(st.lists(st.lists(letters, min_size=1, max_size=8), min_size=1, max_size=6))
    made = [
        Sentence(tuple(words), tuple(data.draw(st.sampled_from(LABELS)) for _ in words), place // 2)
        for place, words in enumerate(texts)
    ]
    expected = {place: [LABELS.index(tag) for tag in sentence.tags] for place, sentence in enumerate(made)}
    for in_windows, width in ((False, None), (False, 40), (True, None), (True, 40)):
        subwords = Subwords(made, data_info, in_windows=in_windows)
        batch = subwords.batch(whole(*range(len(subwords))), tokens_per_row=width)
        found = words_of(batch)  # which holds the label of a word's first subword to be the word's
        assert {place: labels for place, (labels, _) in found.items()} == expected
        assert int((batch.labels != IGNORE_INDEX).sum()) == sum(start >= 0 for _, starts in found.values() for start in starts)
        for starts in batch.word_starts.tolist():
            real = [start for start in starts if start >= 0]
            assert real == sorted(set(real))
