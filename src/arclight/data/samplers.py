"""Which samples make up each batch: a pure function of seed, epoch, position and process.

Every process works out the whole global batch and takes its own rows, so one batch holds the same samples on 1, 2 or 8
devices, and a run that stops inside an epoch can go on at the same position.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from arclight.errors import InputError

T = TypeVar("T")
# Fourth number of a generator's key, so that no two uses of one seed share a stream; the shuffle has none, which counts as 0
AUGMENTATION, SPLIT, DROPOUT, SIDES, SAMPLE = 1, 2, 3, 4, 5


def derive_seed(key: tuple[int, ...]) -> int:
    """A seed that depends on all numbers of the key, 0 or more each, so that no two uses of one seed share a stream."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) & (2**63 - 1)


def generator(seed: int, epoch: int = 0, step: int = 0, purpose: int = 0) -> torch.Generator:
    """A generator on the CPU with the `stream` of these four numbers."""
    return torch.Generator().manual_seed(derive_seed((seed, epoch, step, purpose)))


@dataclass(frozen=True)
class Shard:
    """One process among `world_size`; each optimizer step adds up `accumulation` parts on every process."""

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    @property
    def num_parts(self) -> int:
        """Parts that one global batch is cut into."""
        return self.world_size * self.accumulation


class BatchIndices(NamedTuple):
    """What one process takes of one batch."""

    indices: Tensor  # int64 (B,), rows of the split, -1 on rows that only fill the batch
    whole: Tensor  # int64 (global batch,), the rows of all processes and parts
    offset: int  # where `indices` begins in `whole`
    step: int  # optimizer step inside the epoch
    position: int = 0  # parts taken in this epoch once this one is


class TrainSampler:
    """Shuffled anew each epoch, cut into global batches; the rows of a last, incomplete batch wait for another epoch.

    Lightning calls `set_epoch`, and `state_dict` when it saves inside an epoch: the position is all there is to save. With
    `is_fixed` every epoch has the batches of epoch 0, as who wants to overfit a few of them needs it.

    Raises:
        InputError: when the batch is larger than the split.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, seed: int, shard: Shard | None = None, is_fixed: bool = False
    ) -> None:
        self.shard = shard or Shard()
        if batch_size > num_samples:
            raise InputError(
                f"data.batch_size={batch_size} is larger than the training split of {num_samples} samples; "
                f"take data.batch_size={num_samples} or less"
            )
        assert batch_size % self.shard.num_parts == 0  # checked by hardware.accumulation_steps
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.is_fixed = is_fixed
        self.epoch = 0  # whose shuffle is taken
        self.trained_epoch = 0  # the same unless the order is fixed
        self.start = 0  # part at which the next pass begins; not 0 only right after a resume
        self.start_epoch = 0  # the epoch that `start` is meant for
        self.position = 0  # parts taken in this epoch

    @property
    def num_steps(self) -> int:
        """Optimizer steps in an epoch."""
        return self.num_samples // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the shuffle of this epoch."""
        if epoch != self.start_epoch:  # the saved epoch ended where it was saved, as one that a limit cuts short does
            self.start = 0
        self.trained_epoch = epoch
        self.epoch = 0 if self.is_fixed else epoch

    def batches(self) -> Tensor:
        """The global batches of this epoch, int64 (num_steps, batch_size)."""
        shuffled = torch.randperm(self.num_samples, generator=generator(self.seed, self.epoch))
        return shuffled[: self.num_steps * self.batch_size].view(self.num_steps, self.batch_size)

    def __len__(self) -> int:
        return self.num_steps * self.shard.accumulation

    def __iter__(self) -> Iterator[BatchIndices]:
        for rows in self.upcoming():
            self.take(rows)
            yield rows

    def upcoming(self) -> Iterator[BatchIndices]:
        """The parts of this pass, for who looks ahead and calls `take` as they are given out."""
        batches = self.batches()
        rows_per_part = self.batch_size // self.shard.num_parts
        start, self.start = self.start, 0
        for position in range(start, len(self)):
            step, part = divmod(position, self.shard.accumulation)
            offset = (part * self.shard.world_size + self.shard.rank) * rows_per_part
            yield BatchIndices(batches[step, offset : offset + rows_per_part], batches[step], offset, step, position + 1)

    def take(self, rows: BatchIndices) -> None:
        """Counts a part as taken: a run that stops now goes on with the next."""
        self.position = rows.position

    def state_dict(self) -> dict[str, int]:
        """The epoch, and where in it the next part begins."""
        return {"epoch": self.trained_epoch, "position": self.position % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass begin where the saved one stopped."""
        self.start, self.start_epoch = state["position"], state["epoch"]


class EvalSampler:
    """Every row once, in the given order; all processes get equally many batches, filled up with -1.

    Equally many, because validation inside fit is wrapped by ddp, where a process that runs out of batches makes the others
    wait for ever. The rows that fill up count in no score.
    """

    def __init__(self, rows: Tensor, batch_size: int, *, shard: Shard | None = None) -> None:
        self.rows = rows  # int64 (num_samples,)
        self.batch_size = batch_size
        self.shard = shard or Shard()

    def __len__(self) -> int:
        return -(-len(self.rows) // (self.batch_size * self.shard.world_size))

    def __iter__(self) -> Iterator[BatchIndices]:
        return self.upcoming()

    def take(self, rows: BatchIndices) -> None:
        """Nothing: no run goes on inside an evaluation."""

    def upcoming(self) -> Iterator[BatchIndices]:
        """The batches of a pass, for who looks ahead."""
        whole_size = self.batch_size * self.shard.world_size
        for step in range(len(self)):
            whole = self.rows[step * whole_size : (step + 1) * whole_size]
            rows_per_process = -(-len(whole) // self.shard.world_size)
            whole = torch.nn.functional.pad(whole, (0, rows_per_process * self.shard.world_size - len(whole)), value=-1)
            offset = self.shard.rank * rows_per_process
            yield BatchIndices(whole[offset : offset + rows_per_process], whole, offset, step)


def prefetch(
    order: TrainSampler | EvalSampler, begin: Callable[[BatchIndices], T], depth: int
) -> Iterator[tuple[BatchIndices, T]]:
    """The parts of a pass, each with what `begin` gave for it, which is called for up to `depth` parts more than are given out.

    The position that a checkpoint holds counts what has been given out, not what has been begun.
    """
    begun: deque[tuple[BatchIndices, T]] = deque()
    upcoming = order.upcoming()
    while True:
        begun.extend((rows, begin(rows)) for rows in islice(upcoming, depth + 1 - len(begun)))
        if not begun:
            return
        order.take(begun[0][0])
        yield begun.popleft()
