"""Which pieces of text share a batch, a row and a window, so that little of what a net works on is padding."""

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
from arclight.text.columns import Sentence
from arclight.text.info import TokenInfo

WINDOW = 50  # batches whose texts are sorted by length together; more would pad less and shuffle less

_log = logging.getLogger(__name__)


class TextSampler(TrainSampler):
    """Shuffled batches, which know how long each piece of text is."""

    def __init__(
        self, lengths: Tensor, batch_size: int, *, seed: int, shard: Shard | None = None, is_fixed: bool = False
    ) -> None:
        super().__init__(len(lengths), batch_size, seed=seed, shard=shard, is_fixed=is_fixed)
        self.lengths = lengths


class BucketSampler(TextSampler):
    """Shuffled, sorted by length inside windows of 50 batches so that little is padding, cut, and the batches shuffled."""

    def batches(self) -> Tensor:
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)[: self.num_steps * self.batch_size]
        windows = torch.arange(len(shuffled)) // (WINDOW * self.batch_size)
        by_length = torch.argsort(windows * (int(self.lengths.max()) + 1) + self.lengths[shuffled], stable=True)
        return shuffled[by_length].view(self.num_steps, self.batch_size)[torch.randperm(self.num_steps, generator=random)]


class EvenSampler(TextSampler):
    """Shuffled batches of about equally many subwords, each piece in every epoch; all fit one shape with little padding.

    An epoch has as few batches as `batch_size` pieces at most in each allow; -1 stands where one has fewer. The longest pieces
    are spread over the batches first, one to each, then the next ones, the longest of them to the batch that has least, and in
    the same way inside a batch over the parts that processes take. Which lengths meet is thereby the same in every epoch, and
    which pieces of these lengths, and the order of the batches, are drawn anew: one shape fits all that will ever come.
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
        return batches.gather(1, deal(self._lengths_of(batches), self.shard.num_parts).flatten(1))

    def shape(self, capacity: int) -> Shape:
        """The shape, with rows of `capacity` places at most, that every part of every batch of every epoch fits."""
        parts = self._lengths_of(self.batches()).view(-1, self.batch_size // self.shard.num_parts)
        shape = common_shape(parts, capacity)
        share = int(parts.sum()) / (len(parts) * shape.rows * shape.width)
        _log.info("data.packing=fixed: %d rows of %d places in each part of a batch, %.0f %% text", *shape, 100 * share)
        return shape

    def _lengths_of(self, pieces: Tensor) -> Tensor:
        return self.lengths[pieces.clamp(min=0)] * (pieces >= 0)


def deal(lengths: Tensor, num_hands: int) -> Tensor:
    """Pieces dealt out so that all hands hold equally many, and about equally many subwords.

    Round by round, the longest first: in each round the hand that holds least gets the longest.

    Args:
        lengths: int64 (G, N), of the pieces of each game; `num_hands` divides N.
        num_hands: that each game is dealt to.

    Returns:
        Which pieces of its game each hand holds, int64 (G, num_hands, N // num_hands).
    """
    rounds = lengths.argsort(dim=1, descending=True, stable=True).unflatten(1, (-1, num_hands))
    sums = lengths.new_zeros(len(lengths), num_hands)
    hands: list[Tensor] = []
    for pieces in rounds.unbind(1):
        least_first = sums.argsort(dim=1, stable=True)
        hands.append(torch.empty_like(pieces).scatter_(1, least_first, pieces))
        sums += lengths.gather(1, hands[-1])
    return torch.stack(hands, dim=2)


class Shape(NamedTuple):
    """Rows and places in each of them."""

    rows: int
    width: int


def common_shape(parts: Tensor, capacity: int) -> Shape:
    """The least shape with rows of about `capacity` places at most that every part fits.

    Args:
        parts: int64 (parts, pieces), the lengths of the pieces in each, at most `capacity`.
        capacity: most subwords in a row; the width is rounded up to a multiple of 8, as tensor cores like it.
    """
    lengths: list[list[int]] = parts.tolist()
    num_rows = max(len(fill_rows(part, capacity)) for part in lengths)
    width = max(sum(part[piece] for piece in row) for part in lengths for row in fill_rows(part, capacity, num_rows))
    return Shape(num_rows, max(8, -(-width // 8) * 8))


class Layout(NamedTuple):
    """Where each of P pieces of text stands in R rows of T places; int64, on the host."""

    rows: Tensor  # (P,), the row of each piece
    starts: Tensor  # (P,), its first place there
    sources: Tensor  # (R, T), which of the flat subwords stands at each place, 0 on padding
    segments: Tensor  # (R, T), number of the piece in its row from 1, 0 on padding
    position_ids: Tensor  # (R, T), place within the piece, 0 on padding
    boundaries: Tensor  # int32 (P + R + 1,), from 0: where, in all rows laid end to end, a piece or the padding of a row begins


def fill_rows(lengths: Sequence[int], capacity: int, num_rows: int = 0) -> list[list[int]]:
    """The numbers of the pieces in each row: few rows, and those about equally full, so that none is wide for little.

    First fit decreasing (the longest first, each into the first row with room) finds how many rows it takes, at most 11/9 of
    the fewest possible and 1. The pieces are then dealt to so many rows, the longest first, each to the emptiest; that stands
    unless its fullest row is fuller. Pieces of one length keep their order: the rows are a function of the lengths alone.
    There are at least `num_rows`, and some may be empty.

    Source: Johnson 1973, Near-optimal bin packing algorithms; Graham 1969, Bounds on multiprocessing timing anomalies.
    """
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    sums = [0] * num_rows
    for piece in longest_first:
        row = next((number for number, filled in enumerate(sums) if filled + lengths[piece] <= capacity), len(rows))
        if row == len(rows):
            rows.append([])
            sums.append(0)
        rows[row].append(piece)
        sums[row] += lengths[piece]
    dealt: list[list[int]] = [[] for _ in rows]
    emptiest = [(0, number) for number in range(len(rows))]
    for piece in longest_first:
        filled, row = emptiest[0]
        dealt[row].append(piece)
        heapq.heapreplace(emptiest, (filled + lengths[piece], row))
    return dealt if max(emptiest)[0] <= max(sums) else rows


def lay_out(lengths: Tensor, offsets: Tensor, capacity: int, shape: Shape | None = None) -> Layout:
    """Rows of `capacity` places at most, and no wider than the fullest of them; or rows of this shape.

    Args:
        lengths: int64 (P,), subwords of each piece, at most `capacity`; 0 for a piece that only fills the batch.
        offsets: int64 (P,), where each begins among the flat subwords.
        capacity: most subwords in a row.
        shape: what `common_shape` gave for parts of which this is one.
    """
    filled = fill_rows(lengths.tolist(), capacity, 0 if shape is None else shape.rows)
    order = np.array([piece for row in filled for piece in row], dtype=np.int64)
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
    places = np.empty((2, len(order)), dtype=np.int64)
    places[:, order] = row_of, start
    # what is behind the last piece of a row is like a piece of its own: no place may belong to none
    begins = row_of * width + start
    ends_of_rows = np.bincount(row_of, weights=size, minlength=len(filled)).astype(np.int64) + np.arange(len(filled)) * width
    total = len(filled) * width
    boundaries = np.full(len(lengths) + len(filled) + 1, total, dtype=np.int32)
    found = np.unique(np.concatenate([[0], begins[size > 0], ends_of_rows]))
    boundaries[: len(found)] = found
    rows, starts = torch.from_numpy(places)
    sources, segments, position_ids = torch.from_numpy(tables.reshape(3, len(filled), width))
    return Layout(rows, starts, sources, segments, position_ids, torch.from_numpy(boundaries))


def window_sizes(lengths: Sequence[int], documents: Sequence[int], capacity: int) -> list[int]:
    """How many sentences each window holds: as many as there is room for, in their order, never of two documents.

    Args:
        lengths: subwords of each sentence, special ones left out; a longer one than `capacity` has a window to itself.
        documents: number of each sentence's document.
        capacity: most subwords in a window, special ones left out.
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
    """How many sentences each window of at most `spec.max_length` subwords holds."""
    tokenizer = Tokenizer.from_str(data_info.tokenizer)
    tokenizer.no_truncation()
    words = [list(sentence.words) for sentence in sentences]
    lengths = [len(found.ids) for found in tokenizer.encode_batch(words, is_pretokenized=True, add_special_tokens=False)]
    room = data_info.max_length - tokenizer.num_special_tokens_to_add(is_pair=False)
    return window_sizes(lengths, [sentence.document for sentence in sentences], room)
