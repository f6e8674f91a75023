"""Which pieces of text share a batch, a row and a window, so that little of what a net works on is padding."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arclight.data.order import Shard, TrainOrder, generator

WINDOW = 50  # batches whose texts are sorted by length together; more would pad less and shuffle less


class TextOrder(TrainOrder):
    """Shuffled batches, which know how long each piece of text is."""

    def __init__(
        self, lengths: Tensor, batch_size: int, *, seed: int, shard: Shard | None = None, is_fixed: bool = False
    ) -> None:
        super().__init__(len(lengths), batch_size, seed=seed, shard=shard, is_fixed=is_fixed)
        self.lengths = lengths


class BucketOrder(TextOrder):
    """Shuffled, sorted by length inside windows of 50 batches so that little is padding, cut, and the batches shuffled."""

    def batches(self) -> Tensor:
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)[: self.num_steps * self.batch_size]
        windows = torch.arange(len(shuffled)) // (WINDOW * self.batch_size)
        by_length = torch.argsort(windows * (int(self.lengths.max()) + 1) + self.lengths[shuffled], stable=True)
        return shuffled[by_length].view(self.num_steps, self.batch_size)[torch.randperm(self.num_steps, generator=random)]


class Layout(NamedTuple):
    """Where each of P pieces of text stands in R rows of T places; all int64, on the host."""

    rows: Tensor  # (P,), the row of each piece
    starts: Tensor  # (P,), its first place there
    sources: Tensor  # (R, T), which of the flat subwords stands at each place, 0 on padding
    segments: Tensor  # (R, T), number of the piece in its row from 1, 0 on padding
    position_ids: Tensor  # (R, T), place within the piece, 0 on padding


def fill_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The numbers of the pieces in each row: few rows, and those about equally full, so that none is wide for little.

    First fit decreasing (the longest first, each into the first row with room) finds how many rows it takes, at most 11/9 of
    the fewest possible and 1. The pieces are then dealt to so many rows, the longest first, each to the emptiest; that stands
    unless its fullest row is fuller. Pieces of one length keep their order: the rows are a function of the lengths alone.

    Source: Johnson 1973, Near-optimal bin packing algorithms; Graham 1969, Bounds on multiprocessing timing anomalies.
    """
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    rows: list[list[int]] = []
    sums: list[int] = []
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


def lay_out(lengths: Tensor, offsets: Tensor, capacity: int) -> Layout:
    """Rows of `capacity` places at most, and no wider than the fullest of them.

    Args:
        lengths: int64 (P,), subwords of each piece, at most `capacity`; 0 for a piece that only fills the batch.
        offsets: int64 (P,), where each begins among the flat subwords.
        capacity: most subwords in a row.
    """
    filled = fill_rows(lengths.tolist(), capacity)
    order = np.array([piece for row in filled for piece in row], dtype=np.int64)
    row_of = np.repeat(np.arange(len(filled)), [len(row) for row in filled])
    number = np.concatenate([np.arange(1, len(row) + 1) for row in filled])
    size = lengths.numpy()[order]
    ends = np.cumsum(size)
    before_row = np.concatenate([[0], ends])[np.searchsorted(row_of, row_of)]  # subwords in all rows above
    start = ends - size - before_row
    width = max(1, int((start + size).max()))
    within = np.arange(ends[-1]) - np.repeat(ends - size, size)
    target = np.repeat(row_of * width + start, size) + within
    tables = np.zeros((3, len(filled) * width), dtype=np.int64)
    tables[0, target] = np.repeat(offsets.numpy()[order], size) + within
    tables[1, target] = np.repeat(number, size)
    tables[2, target] = within
    places = np.empty((2, len(order)), dtype=np.int64)
    places[:, order] = row_of, start
    return Layout(*torch.from_numpy(places), *torch.from_numpy(tables.reshape(3, len(filled), width)))


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
