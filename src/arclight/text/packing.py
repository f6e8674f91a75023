"""Which texts share a batch, a row and a window, so that little of a batch is padding."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from arclight.data.samplers import Shard, TrainSampler, generator
from arclight.text.info import TokenInfo
from arclight.text.sentences import Sentence

WINDOW = 50  # batches sorted by length together; more would pad less and shuffle less

_log = logging.getLogger(__name__)


class TextSampler(TrainSampler):
    """A TrainSampler that knows the length of each text, in subwords."""

    def __init__(
        self, lengths: Tensor, batch_size: int, *, seed: int, shard: Shard | None = None, is_fixed: bool = False
    ) -> None:
        super().__init__(len(lengths), batch_size, seed=seed, shard=shard, is_fixed=is_fixed)
        self.lengths = lengths


class BucketSampler(TextSampler):
    """Shuffles, sorts by length within windows of 50 batches, cuts into batches and shuffles these."""

    def batches(self) -> Tensor:
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)[: self.num_steps * self.batch_size]
        windows = torch.arange(len(shuffled)) // (WINDOW * self.batch_size)
        by_length = torch.argsort(windows * (int(self.lengths.max()) + 1) + self.lengths[shuffled], stable=True)
        return shuffled[by_length].view(self.num_steps, self.batch_size)[torch.randperm(self.num_steps, generator=random)]


class EvenSampler(TextSampler):
    """Yields batches of about equally many subwords, with each text in every epoch; all fit one shape with little padding.

    An epoch has as few batches as possible with at most `batch_size` texts; shorter ones are padded with -1. The longest texts
    are dealt to the batches first, one to each, then the next ones, the longest to the batch with the fewest subwords; within a
    batch micro-batches are filled in the same way. The lengths in each batch are the same in every epoch, so that one shape
    fits all; which texts of these lengths, and the order of batches, are random.
    """

    @property
    def num_steps(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def batches(self) -> Tensor:
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)
        filled = nn.functional.pad(shuffled, (0, self.num_steps * self.batch_size - self.num_samples), value=-1)
        batches = filled[deal(self._lengths_of(filled)[None], self.num_steps)[0]]
        batches = batches[torch.randperm(self.num_steps, generator=random)]
        return batches.gather(1, deal(self._lengths_of(batches), self.shard.num_micro_batches).flatten(1))

    def shape(self, capacity: int) -> Shape:
        """Returns the shape, with rows of at most `capacity` subwords, that fits every micro-batch of every epoch."""
        lengths = self._lengths_of(self.batches()).view(-1, self.batch_size // self.shard.num_micro_batches)
        shape = common_shape(lengths, capacity)
        filled = int(lengths.sum()) / (len(lengths) * shape.rows * shape.width)
        _log.info("data.packing=fixed: %d rows of %d positions in each micro-batch, %.0f %% text", *shape, 100 * filled)
        return shape

    def _lengths_of(self, texts: Tensor) -> Tensor:
        return self.lengths[texts.clamp(min=0)] * (texts >= 0)


def deal(lengths: Tensor, num_groups: int) -> Tensor:
    """Distributes texts over groups of equally many texts and about equally many subwords.

    In each round every group gets one text, the longest texts first; the group with the fewest subwords gets the longest.

    Args:
        lengths: int64 (G, N), of the texts of G independent distributions; `num_groups` divides N.
        num_groups: of each distribution.

    Returns:
        The texts of each group, int64 (G, num_groups, N // num_groups).
    """
    rounds = lengths.argsort(dim=1, descending=True, stable=True).unflatten(1, (-1, num_groups))
    sums = lengths.new_zeros(len(lengths), num_groups)
    dealt: list[Tensor] = []
    for texts in rounds.unbind(1):
        least_first = sums.argsort(dim=1, stable=True)
        dealt.append(torch.empty_like(texts).scatter_(1, least_first, texts))
        sums += lengths.gather(1, dealt[-1])
    return torch.stack(dealt, dim=2)


class Shape(NamedTuple):
    """Rows, and positions in each of them."""

    rows: int
    width: int


def common_shape(lengths: Tensor, capacity: int) -> Shape:
    """Returns the smallest shape with rows of at most `capacity` subwords that fits every micro-batch.

    Args:
        lengths: int64 (micro-batches, texts), each at most `capacity`.
        capacity: most subwords in a row; the width is rounded up to a multiple of 8 for tensor cores.
    """
    batches: list[list[int]] = lengths.tolist()
    num_rows = max(len(fill_rows(batch, capacity)) for batch in batches)
    width = max(sum(batch[text] for text in row) for batch in batches for row in fill_rows(batch, capacity, num_rows))
    return Shape(num_rows, max(8, -(-width // 8) * 8))


class Layout(NamedTuple):
    """Where P texts are in R rows of T positions; int64, on the host."""

    rows: Tensor  # (P,), the row of each text
    starts: Tensor  # (P,), its first position in the row
    sources: Tensor  # (R, T), index of the flat subword at each position, 0 on padding
    segments: Tensor  # (R, T), number of the text in its row from 1, 0 on padding
    position_ids: Tensor  # (R, T), position within the text, 0 on padding
    boundaries: Tensor  # int32 (P + R + 1,), from 0: where, in the concatenated rows, a text or the padding of a row begins


def fill_rows(lengths: Sequence[int], capacity: int, num_rows: int = 0) -> list[list[int]]:
    """Returns the texts of each row: few rows, and about equally full. At least `num_rows`, of which some may be empty.

    First fit decreasing (the longest first, each into the first row with room) gives the number of rows, at most 11/9 of the
    minimum plus 1. The texts are then distributed again over so many rows, the longest first, each to the emptiest, unless that
    makes the fullest row fuller. Rows are a function of the lengths alone.

    Source: Johnson 1973, Near-optimal bin packing algorithms; Graham 1969, Bounds on multiprocessing timing anomalies.
    """
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    sums = [0] * num_rows
    for text in longest_first:
        row = next((number for number, filled in enumerate(sums) if filled + lengths[text] <= capacity), len(rows))
        if row == len(rows):
            rows.append([])
            sums.append(0)
        rows[row].append(text)
        sums[row] += lengths[text]
    dealt: list[list[int]] = [[] for _ in rows]
    emptiest = [(0, number) for number in range(len(rows))]
    for text in longest_first:
        filled, row = emptiest[0]
        dealt[row].append(text)
        heapq.heapreplace(emptiest, (filled + lengths[text], row))
    return dealt if max(emptiest)[0] <= max(sums) else rows


def lay_out(lengths: Tensor, offsets: Tensor, capacity: int, shape: Shape | None = None) -> Layout:
    """Returns rows of at most `capacity` subwords and as wide as the fullest of them, or rows of the given shape.

    Args:
        lengths: int64 (P,), subwords of each text, at most `capacity`; 0 for padding.
        offsets: int64 (P,), index of the first of its flat subwords.
        capacity: most subwords in a row.
        shape: of `common_shape`.
    """
    filled = fill_rows(lengths.tolist(), capacity, 0 if shape is None else shape.rows)
    order = np.array([text for row in filled for text in row], dtype=np.int64)
    row_of = np.repeat(np.arange(len(filled)), [len(row) for row in filled])
    number = np.concatenate([np.arange(1, len(row) + 1) for row in filled])
    size = lengths.numpy()[order]
    ends = np.cumsum(size)
    before_row = np.concatenate([[0], ends])[np.searchsorted(row_of, row_of)]  # subwords in all rows above
    start = ends - size - before_row
    width = max(1, int((start + size).max())) if shape is None else shape.width
    within = np.arange(ends[-1]) - np.repeat(ends - size, size)
    target = np.repeat(row_of * width + start, size) + within
    tables = np.zeros((3, len(filled) * width), dtype=np.int64)
    tables[0, target] = np.repeat(offsets.numpy()[order], size) + within
    tables[1, target] = np.repeat(number, size)
    tables[2, target] = within
    found_at = np.empty((2, len(order)), dtype=np.int64)
    found_at[:, order] = row_of, start
    # the padding of a row counts as a text: every position must belong to one
    begins = row_of * width + start
    ends_of_rows = np.bincount(row_of, weights=size, minlength=len(filled)).astype(np.int64) + np.arange(len(filled)) * width
    total = len(filled) * width
    boundaries = np.full(len(lengths) + len(filled) + 1, total, dtype=np.int32)
    found = np.unique(np.concatenate([[0], begins[size > 0], ends_of_rows]))
    boundaries[: len(found)] = found
    rows, starts = torch.from_numpy(found_at)
    sources, segments, position_ids = torch.from_numpy(tables.reshape(3, len(filled), width))
    return Layout(rows, starts, sources, segments, position_ids, torch.from_numpy(boundaries))


def window_sizes(lengths: Sequence[int], documents: Sequence[int], capacity: int) -> list[int]:
    """Returns the number of sentences in each window: consecutive sentences of one document, as many as fit.

    Args:
        lengths: subwords of each sentence without special ones; one longer than `capacity` has its own window.
        documents: number of each sentence's document.
        capacity: most subwords in a window without special ones.
    """
    sizes: list[int] = []
    room, document = 0, None
    for length, own in zip(lengths, documents, strict=True):
        if own != document or length > room:
            sizes.append(0)
            room, document = capacity, own
        sizes[-1] += 1
        room -= length
    return sizes


def find_windows(sentences: Sequence[Sentence], data_info: TokenInfo) -> list[int]:
    """Returns the number of sentences in each window of at most `data_info.max_length` subwords."""
    tokenizer = Tokenizer.from_str(data_info.tokenizer)
    tokenizer.no_truncation()
    words = [list(sentence.words) for sentence in sentences]
    lengths = [len(found.ids) for found in tokenizer.encode_batch(words, is_pretokenized=True, add_special_tokens=False)]
    room = data_info.max_length - tokenizer.num_special_tokens_to_add(is_pair=False)
    return window_sizes(lengths, [sentence.document for sentence in sentences], room)
