from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

from arclight.data.exact_loader import ExactLoader, end_workers, eval_sizes, part_of
from arclight.data.samplers import Shard

SIZE = 23


class Drawing(Dataset[tuple[int, float, float, float]]):
    """Draws from each generator for every sample."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), float(np.random.random()), float(torch.rand(()))


class Quiet(Dataset[int]):
    """Draws nothing."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        return index


def draw_in_collate(samples: list[int]) -> tuple[list[int], float]:
    return samples, float(torch.rand(()))


def batch_sampler() -> BatchSampler:
    return BatchSampler(WeightedRandomSampler([1.0] * SIZE, SIZE), 5, drop_last=False)


class OddFirst(Sampler[int]):
    """A user's own order, which changes with the epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Any:
        return iter([*range(1 - self.epoch % 2, SIZE, 2), *range(self.epoch % 2, SIZE, 2)])


LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "shuffled": lambda: DataLoader(Drawing(), batch_size=4, shuffle=True),
    "workers": lambda: DataLoader(Drawing(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True),
    "in order": lambda: DataLoader(Drawing(), batch_size=4),
    "subset": lambda: DataLoader(Subset(Drawing(), list(range(22, -1, -1))), batch_size=4, shuffle=True),
    "collate draws": lambda: DataLoader(Quiet(), batch_size=4, shuffle=True, collate_fn=draw_in_collate),
    "last dropped": lambda: DataLoader(Drawing(), batch_size=4, shuffle=True, drop_last=True),
    "weighted": lambda: DataLoader(Drawing(), batch_size=4, sampler=WeightedRandomSampler([1.0] * SIZE, SIZE)),
    "own generator": lambda: DataLoader(Drawing(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(9)),
    "own sampler": lambda: DataLoader(Drawing(), batch_size=4, sampler=OddFirst()),
    "own batches": lambda: DataLoader(Drawing(), batch_sampler=batch_sampler()),
    "whole batches": lambda: DataLoader(Drawing(), batch_size=None, shuffle=True),
}


def exact(name: str, shard: Shard | None = None, epoch: int = 3, **options: Any) -> ExactLoader:
    loader = ExactLoader(LOADERS[name](), seed=1, shard=shard or Shard(), **options)
    loader.set_epoch(epoch)
    return loader


def samples_of(batch: Any) -> set[tuple[float, ...]]:
    return set(zip(*(column.tolist() for column in batch), strict=True))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_epoch_continues_with_the_same_batches(name: str, stop: int) -> None:
    whole = list(exact(name))
    assert len(whole) == len(exact(name))
    stopped = exact(name)
    batches = iter(stopped)
    for _ in range(stop):
        next(batches)
    resumed = ExactLoader(LOADERS[name](), seed=1, shard=Shard())
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(3)
    torch.rand(7)  # what else was drawn does not matter
    assert str(list(resumed)) == str(whole[stop:])
    resumed.set_epoch(4)
    assert str(list(resumed)) == str(list(exact(name, epoch=4)))


@pytest.mark.parametrize("name", ["shuffled", "weighted", "own generator", "own sampler", "whole batches"])
def test_epochs_differ(name: str) -> None:
    assert str(list(exact(name, epoch=3))) != str(list(exact(name, epoch=4)))


def test_fixed_batches_are_the_same_in_every_epoch() -> None:
    assert str(list(exact("shuffled", is_fixed=True))) == str(list(exact("shuffled", epoch=5, is_fixed=True)))


def test_a_second_pass_in_one_epoch_has_another_order_and_resumes_there() -> None:
    loader = exact("shuffled")
    passes = [str(list(loader)) for _ in range(2)]
    assert passes[0] != passes[1]
    again = exact("shuffled")
    list(again)
    second = iter(again)
    next(second)
    resumed = ExactLoader(LOADERS["shuffled"](), seed=1, shard=Shard())
    resumed.load_state_dict(again.state_dict())
    resumed.set_epoch(3)
    loader = exact("shuffled")
    list(loader)
    assert str(list(resumed)) == str(list(loader)[1:])


@pytest.mark.parametrize("name", ["shuffled", "workers", "subset", "weighted", "own sampler", "last dropped"])
def test_processes_and_accumulation_steps_share_each_global_batch(name: str) -> None:
    whole = list(exact(name, batch_size=8))
    parts = [list(exact(name, Shard(rank, 2, 2), batch_size=8)) for rank in range(2)]
    assert [len(part) for part in parts] == [2 * len(whole)] * 2
    for step, batch in enumerate(whole):
        shared = set[tuple[float, ...]]().union(*(samples_of(part[2 * step + half]) for part in parts for half in range(2)))
        assert shared == samples_of(batch)


def test_factors_make_the_mean_of_unequal_parts_that_of_the_batch() -> None:
    seen = 0
    for rank in range(2):
        loader = exact("in order", Shard(rank, 2), batch_size=6)
        *_, batch = loader
        assert len(batch[0]) == (3 if rank == 0 else 2)  # the last 5 of 23
        assert loader.loss_factor == pytest.approx(len(batch[0]) * 2 / 5)
        seen += len(batch[0])
    assert seen == 5


def test_a_process_without_a_sample_gets_one_that_counts_nothing() -> None:
    loader = exact("in order", Shard(1, 2), batch_size=22)  # one sample is left
    last = list(loader)[-1]
    assert len(last[0]) == 1
    assert loader.loss_factor == 0.0


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 23, 24])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 11])
def test_every_sample_is_evaluated_once_in_equally_many_batches(world_size: int, batch_size: int) -> None:
    parts = []
    for rank in range(world_size):
        loader = ExactLoader(DataLoader(Quiet(), batch_size=batch_size), seed=0, shard=Shard(rank, world_size), is_train=False)
        parts.append([batch.tolist() for batch in loader])
        assert len(parts[-1]) == len(loader)
        assert all(parts[-1])
    if world_size > SIZE:  # each process evaluates everything
        assert all(part == parts[0] for part in parts)
        return
    assert len({len(part) for part in parts}) == 1
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(SIZE))


def test_evaluation_has_the_same_random_numbers_in_every_epoch_and_pass() -> None:
    loader = exact("shuffled", is_train=False)
    first = str(list(loader))
    loader.set_epoch(7)
    assert str(list(loader)) == first


def test_positions_are_global_batches() -> None:
    before = exact("shuffled", Shard(0, 1, 4), batch_size=8)
    batches = iter(before)
    for _ in range(4):
        next(batches)
    after = ExactLoader(LOADERS["shuffled"](), seed=1, shard=Shard(0, 1, 1), batch_size=8)
    after.load_state_dict(before.state_dict())
    after.set_epoch(3)
    assert str(list(after)) == str(list(exact("shuffled", batch_size=8))[1:])


def test_parts_differ_by_one_at_most() -> None:
    assert [part_of(7, 3, number) for number in range(3)] == [(0, 3), (3, 5), (5, 7)]
    assert eval_sizes(10, 4, 2) == [4, 4, 2]
    assert eval_sizes(9, 4, 2) == [4, 5]
    assert eval_sizes(1, 4, 2) == [1]


def test_persistent_workers_end_at_once() -> None:
    loader = ExactLoader(LOADERS["workers"](), seed=0, shard=Shard())
    next(iter(loader))
    inner = loader._inner
    assert inner is not None
    workers = inner._iterator._workers
    assert all(worker.is_alive() for worker in workers)
    trainer_loop = SimpleNamespace(_combined_loader=SimpleNamespace(flattened=[loader]))
    del inner
    end_workers([trainer_loop, SimpleNamespace(_combined_loader=None)])
    assert not any(worker.is_alive() for worker in workers)


def test_a_loader_is_freed_without_the_garbage_collector() -> None:
    loader = ExactLoader(LOADERS["shuffled"](), seed=0, shard=Shard())
    freed = weakref.ref(loader)
    gc.disable()
    try:
        del loader
        assert freed() is None
    finally:
        gc.enable()
