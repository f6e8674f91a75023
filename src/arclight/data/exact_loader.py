"""Exact loading with a user's own DataLoader: the engine supplies its order, shard, position and random numbers.

The user's data set, collate function and workers stay. What is drawn for a sample is a function of seed, epoch and place of the
sample in the epoch: not of worker, process, prefetching or an earlier stop. So a run resumes with the same batches, and any
number of processes sees the same samples in each step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler, SequentialSampler

from arclight.data.loader_errors import check_batch, check_length, explain_loader_errors
from arclight.data.samplers import DROPOUT, SAMPLE, Shard, derive_seed
from arclight.data.seeding import SeededDataset, mix, seed_generators
from arclight.errors import InputError

KEPT = (  # settings of a DataLoader that a loader with another order takes over
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("prefetch_factor", "persistent_workers", "pin_memory_device", "in_order"),
)
EVALUATION = 2**31  # the epoch in the seeds of validation and test, whose random numbers do not change with the epoch


class ExactLoader:
    """Iterates over this process's micro-batches of a user's DataLoader.

    A custom sampler keeps its order, drawn from generators that are seeded by the epoch. The batches of a custom batch sampler,
    and of a data set that returns whole batches, stay as they are and are dealt out in turn.

    Args:
        loader: of a map-style data set.
        seed: of the run.
        shard: of this process; the accumulation steps are those of training.
        batch_size: samples in a global batch; None takes the loader's for each micro-batch.
        is_train: training batches are cut alike for any number of processes, and empty parts filled up with a sample that
            counts nothing. Evaluated samples are never repeated, unless there are fewer than processes.
        is_fixed: every epoch has the order of the first.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        seed: int,
        shard: Shard,
        batch_size: int | None = None,
        is_train: bool = True,
        is_fixed: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.loader = loader
        self.seed = seed
        self.shard = shard if is_train else Shard(shard.rank, shard.world_size)
        self.is_train = is_train
        self.is_fixed = is_fixed
        self.device = device
        self.makes_batches = type(loader.batch_sampler) is BatchSampler
        micro_batch = (loader.batch_size or 1) if self.makes_batches else 1
        shard = self.shard if is_train else self._eval_shard
        self.batch_size = batch_size if batch_size and self.makes_batches else micro_batch * shard.num_micro_batches
        if is_train and not self.num_batches:
            raise InputError(
                f"the training data has {self.num_items} samples, fewer than a batch of {self.batch_size}, and its loader "
                f"drops incomplete batches: take data.batch_size={max(1, self.num_items)} or less",
                key="data.batch_size",
            )
        self.epoch = 0
        self.cycle = 0  # passes in this epoch before the present one, where another loader is longer
        self.position = 0  # global batches of this pass that are consumed
        self.loss_factor = 1.0  # of the last micro-batch, see `micro_batches`
        self._part: Any = []  # the keys of the last micro-batch
        self._length: int | None = None  # of the data set in the first pass
        self._start = {"epoch": -1, "cycle": 0, "batches": 0}  # where the next pass begins, if it is of that epoch
        self._inner: DataLoader[Any] | None = None
        self._source = Source()
        self.batch_sampler = None  # Lightning reads it

    @property
    def sampler(self) -> ExactLoader:
        """Itself: Lightning calls its `set_epoch`. Not an attribute, which would be a cycle of references."""
        return self

    def close(self) -> None:
        """Ends persistent workers. Python's garbage collector would wait 5 s for each: it frees their queues before them."""
        if self._inner is not None:
            self._inner._iterator = None
            self._inner = None

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def set_epoch(self, epoch: int) -> None:
        """Selects the order of this epoch."""
        if epoch != self.epoch:
            self.cycle = self.position = 0
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches * self.shard.accumulation_steps

    @property
    def num_batches(self) -> int:
        """Global batches in a pass."""
        total = self.num_items
        if not self.is_train:
            return len(eval_sizes(total, self.batch_size, self._eval_shard.world_size))
        return total // self.batch_size if self.drops_last else -(-total // self.batch_size)

    @property
    def _items(self) -> Any:
        """The user's sampler, or the batch sampler if that is the user's own."""
        is_sampled = self.makes_batches or self.loader.batch_sampler is None
        return self.loader.sampler if is_sampled else self.loader.batch_sampler

    @property
    def num_items(self) -> int:
        """What a pass deals out: samples, or whole batches that the user's code makes."""
        items = self._items
        if isinstance(items, DistributedSampler):
            return len(items.dataset)  # type: ignore[arg-type]  # it is sized
        return len(items)

    @property
    def samples(self) -> list[Any]:
        """What the data set was asked for in the last micro-batch: rows, or whole batches that the user's code makes."""
        return [index for _, _, index in (self._part if isinstance(self._part, list) else [self._part])]

    @property
    def drawn_epoch(self) -> int:
        """The epoch that random numbers depend on."""
        return EVALUATION if not self.is_train else 0 if self.is_fixed else self.epoch

    @property
    def _eval_shard(self) -> Shard:
        """All of it where whole batches cannot be split, or a process would have no sample: each process evaluates all then."""
        return self.shard if self.makes_batches and self.num_items >= self.shard.world_size else Shard()

    @property
    def drops_last(self) -> bool:
        """Whether an incomplete last batch is left out, as the loader says."""
        return self.makes_batches and bool(self.loader.drop_last)

    def order(self) -> Sequence[Any]:
        """Returns the keys of the data set, or whole lists of them, in the order of this pass: the same in every process."""
        sampler, size = self.loader.sampler, self.num_items
        seed = derive_seed((self.seed, self.drawn_epoch, self.cycle))
        if self.makes_batches and isinstance(sampler, DistributedSampler):  # which would shard once more
            return (
                torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist() if sampler.shuffle else range(size)
            )
        if self.makes_batches and type(sampler) is SequentialSampler:
            return range(size)
        items = self._items
        seed_generators(seed)
        for part in (items, getattr(items, "sampler", None)):
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(seed)
            if callable(select := getattr(part, "set_epoch", None)):
                select(self.drawn_epoch)
        return list(islice(items, size))

    def micro_batches(self) -> Iterator[tuple[Any, float]]:
        """Yields the keys of each micro-batch of this process from `position` on, and the factor on its loss.

        The mean over processes and micro-batches of mean losses is that of the whole batch if all parts are equally large.
        In an incomplete last batch the factor makes it so.
        """
        order, shard = self.order(), self.shard
        base = derive_seed((self.seed, self.drawn_epoch, self.cycle, SAMPLE))
        if not self.is_train:
            start = 0
            for size in eval_sizes(len(order), self.batch_size, self._eval_shard.world_size):
                begin, end = part_of(size, self._eval_shard.world_size, self._eval_shard.rank)
                yield self._keys(order, start + begin, start + end, base), 1.0
                start += size
            return
        for first in range(self.position * self.batch_size, self.num_batches * self.batch_size, self.batch_size):
            size = min(self.batch_size, len(order) - first)
            for step in range(shard.accumulation_steps):
                begin, end = part_of(size, shard.num_micro_batches, step * shard.world_size + shard.rank)
                factor = (end - begin) * shard.num_micro_batches / size
                yield (
                    self._keys(order, first + begin, first + end, base)
                    if factor
                    else self._keys(order, first, first + 1, base),
                    factor,
                )

    def _keys(self, order: Sequence[Any], begin: int, end: int, base: int) -> Any:
        """Returns what SeededDataset takes for a micro-batch: a list, or one key if the data set returns whole batches."""
        if self.makes_batches:
            return [(base, place, order[place]) for place in range(begin, end)]
        if self.loader.batch_sampler is None:
            return base, begin, order[begin]
        return [(mix(base, begin), number, index) for number, index in enumerate(order[begin])]

    def __iter__(self) -> Iterator[Any]:
        if self.is_train and self._start["epoch"] == self.epoch:  # the first pass after a resume
            self.cycle, self.position = self._start["cycle"], self._start["batches"]
        elif self.is_train and self.position:
            self.cycle, self.position = self.cycle + 1, 0
        if self.position >= self.num_batches:
            self.cycle, self.position = self.cycle + 1, 0
        self._start["epoch"] = -1
        first = self.position * self.shard.accumulation_steps
        base = derive_seed((self.seed, self.drawn_epoch, self.cycle, DROPOUT, self.shard.rank))
        length = len(self.loader.dataset)  # type: ignore[arg-type]  # map-style
        self._length = length if self._length is None else self._length
        check_length(self.loader.dataset, self._length, length)
        fetched: deque[tuple[Any, float]] = deque()  # keys and factors of batches that are being fetched

        def keys() -> Iterator[Any]:
            for part, factor in self.micro_batches():
                fetched.append((part, factor))
                yield part

        for number, batch in enumerate(self._batches(keys()), first):
            self._part, self.loss_factor = fetched.popleft()
            check_batch(batch, self.loader, number)
            if self.is_train:
                self.position = (number + 1) // self.shard.accumulation_steps
            seed_generators(mix(base, number), self.device)  # for hooks that transfer batches
            yield batch

    def _batches(self, keys: Iterator[Any]) -> Iterator[Any]:
        """Yields the batches of these keys, with errors that users understand."""
        with explain_loader_errors(self.loader):
            iterator = self._iterate(keys)
        while True:
            with explain_loader_errors(self.loader):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    def _iterate(self, keys: Iterator[Any]) -> Iterator[Any]:
        """Returns an iterator over the batches of these keys; persistent workers are kept from pass to pass."""
        if self._inner is None:
            settings = {name: value for name in KEPT if (value := getattr(self.loader, name, None))}
            one_by_one = not self.makes_batches and self.loader.batch_sampler is None
            order = {"batch_size": None, "sampler": self._source} if one_by_one else {"batch_sampler": self._source}
            draws = torch.Generator().manual_seed(derive_seed((self.seed, SAMPLE)))  # of the workers' own seeds
            self._inner = DataLoader(SeededDataset(self.loader.dataset), generator=draws, **order, **settings)
        self._source.keys = keys
        return iter(self._inner)

    def state_dict(self) -> dict[str, int]:
        """Returns the position in global batches, so that other devices and accumulation steps resume right, too."""
        return {"epoch": self.epoch, "cycle": self.cycle, "batches": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next pass begin where the saved one stopped, if it is of the same epoch."""
        self._start = dict(state)


def part_of(size: int, num_parts: int, number: int) -> tuple[int, int]:
    """Returns where part `number` of `size` samples begins and ends; parts differ by one sample at most."""
    each, rest = divmod(size, num_parts)
    begin = number * each + min(number, rest)
    return begin, begin + each + (number < rest)


def end_workers(loops: Sequence[Any]) -> None:
    """Ends the persistent workers of the loaders of Lightning's loops."""
    for loop in loops:
        for loader in getattr(loop._combined_loader, "flattened", ()):
            if isinstance(loader, ExactLoader):
                loader.close()


def eval_sizes(total: int, batch_size: int, world_size: int) -> list[int]:
    """Returns the sizes of the global batches of an evaluation, none smaller than the number of processes."""
    sizes = [batch_size] * (total // batch_size)
    rest = total % batch_size
    if rest >= world_size or (rest and not sizes):
        sizes.append(rest)
    elif rest:
        sizes[-1] += rest
    return sizes


class Source(Sampler[Any]):
    """Yields the keys that the ExactLoader gives it for a pass."""

    def __init__(self) -> None:
        self.keys: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.keys
