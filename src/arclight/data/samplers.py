"""Which samples make up each batch: a pure function of seed, epoch, position and process.

Every process computes the whole global batch and takes its own slice. So a batch holds the same samples on 1, 2 or 8 devices,
and a run that stops inside an epoch resumes at the same position.
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
# Last number of a generator's key, so that no two uses of one seed share a random stream; shuffling has 0
AUGMENTATION, SPLIT, DROPOUT, SIDES, SAMPLE = 1, 2, 3, 4, 5


def derive_seed(key: tuple[int, ...]) -> int:
    """Returns a seed that depends on all numbers of the key, each 0 or more."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) & (2**63 - 1)


def generator(seed: int, epoch: int = 0, step: int = 0, purpose: int = 0) -> torch.Generator:
    """Returns a CPU generator seeded with `derive_seed` of these four numbers."""
    return torch.Generator().manual_seed(derive_seed((seed, epoch, step, purpose)))


@dataclass(frozen=True)
class Shard:
    """One process among `world_size`; each optimizer step accumulates the gradients of `accumulation_steps` micro-batches."""

    rank: int = 0
    world_size: int = 1
    accumulation_steps: int = 1

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches in one global batch, over all processes."""
        return self.world_size * self.accumulation_steps


class BatchIndices(NamedTuple):
    """The rows of one micro-batch of one process."""

    indices: Tensor  # int64 (B,), rows of the split, -1 for padding
    whole: Tensor  # int64 (global batch,), the rows of all processes and micro-batches
    offset: int  # where `indices` begins in `whole`
    step: int  # optimizer step inside the epoch
    position: int = 0  # micro-batches of this epoch that are consumed once this one is


class TrainSampler:
    """Shuffles each epoch and cuts it into global batches; an incomplete last batch is dropped.

    Lightning calls `set_epoch`, and `state_dict` when it saves inside an epoch: the position is the whole state. With
    `is_fixed` every epoch has the batches of epoch 0, as overfitting a few batches needs.

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
                f"take data.batch_size={num_samples} or less",
                key="data.batch_size",
            )
        assert batch_size % self.shard.num_micro_batches == 0  # checked by hardware.accumulation_steps
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.is_fixed = is_fixed
        self.epoch = 0  # of the shuffle
        self.trained_epoch = 0  # the same unless `is_fixed`
        self.start = 0  # micro-batch at which the next pass begins; not 0 only right after a resume
        self.start_epoch = 0  # the epoch that `start` belongs to
        self.position = 0  # micro-batches of this epoch consumed so far

    @property
    def num_steps(self) -> int:
        """Optimizer steps in an epoch."""
        return self.num_samples // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Selects the shuffle of this epoch."""
        if epoch != self.start_epoch:  # the saved epoch ended where it was saved, for example at limit_train_batches
            self.start = 0
        if epoch != self.trained_epoch:
            self.position = 0
        self.trained_epoch = epoch
        self.epoch = 0 if self.is_fixed else epoch

    def batches(self) -> Tensor:
        """Returns the global batches of this epoch, int64 (num_steps, batch_size)."""
        shuffled = torch.randperm(self.num_samples, generator=generator(self.seed, self.epoch))
        return shuffled[: self.num_steps * self.batch_size].view(self.num_steps, self.batch_size)

    def __len__(self) -> int:
        return self.num_steps * self.shard.accumulation_steps

    def __iter__(self) -> Iterator[BatchIndices]:
        return (rows for rows, _ in prefetch(self, lambda _: None, 0))

    def upcoming(self) -> Iterator[BatchIndices]:
        """Yields the micro-batches of this pass without counting them as consumed."""
        batches = self.batches()
        size = self.batch_size // self.shard.num_micro_batches
        start, self.start = self.start, 0
        for position in range(start, len(self)):
            step, micro_batch = divmod(position, self.shard.accumulation_steps)
            offset = (micro_batch * self.shard.world_size + self.shard.rank) * size
            yield BatchIndices(batches[step, offset : offset + size], batches[step], offset, step, position + 1)

    def consume(self, rows: BatchIndices) -> None:
        """Counts a micro-batch as consumed: a resumed run continues with the next."""
        self.position = rows.position

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and the global batches consumed in it: other devices and accumulation steps resume right, too."""
        return {"epoch": self.trained_epoch, "batches": self.position // self.shard.accumulation_steps % self.num_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next pass begin where the saved one stopped."""
        self.start, self.start_epoch = state["batches"] * self.shard.accumulation_steps, state["epoch"]


class EvalSampler:
    """Yields every row once, in the given order; all processes get equally many batches, padded with -1.

    Equally many, because DDP wraps validation inside fit, where a process without a batch would block the others. Padding
    counts in no metric.
    """

    def __init__(self, rows: Tensor, batch_size: int, *, shard: Shard | None = None) -> None:
        self.rows = rows  # int64 (num_samples,)
        self.batch_size = batch_size
        self.shard = shard or Shard()

    def __len__(self) -> int:
        return -(-len(self.rows) // (self.batch_size * self.shard.world_size))

    def __iter__(self) -> Iterator[BatchIndices]:
        return self.upcoming()

    def upcoming(self) -> Iterator[BatchIndices]:
        """Yields the batches of a pass."""
        whole_size = self.batch_size * self.shard.world_size
        for step in range(len(self)):
            whole = self.rows[step * whole_size : (step + 1) * whole_size]
            size = -(-len(whole) // self.shard.world_size)
            whole = torch.nn.functional.pad(whole, (0, size * self.shard.world_size - len(whole)), value=-1)
            offset = self.shard.rank * size
            yield BatchIndices(whole[offset : offset + size], whole, offset, step)

    def consume(self, rows: BatchIndices) -> None:
        """Does nothing: a run never resumes inside an evaluation, so that there is no state."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


def prefetch(
    sampler: TrainSampler | EvalSampler, start: Callable[[BatchIndices], T], depth: int
) -> Iterator[tuple[BatchIndices, T]]:
    """Yields each micro-batch with what `start` returned for it, and calls `start` up to `depth` micro-batches ahead.

    The position in a checkpoint counts the micro-batches that were yielded, not those that were started.
    """
    started: deque[tuple[BatchIndices, T]] = deque()
    upcoming = sampler.upcoming()
    while True:
        started.extend((rows, start(rows)) for rows in islice(upcoming, depth + 1 - len(started)))
        if not started:
            return
        sampler.consume(started[0][0])
        yield started.popleft()
