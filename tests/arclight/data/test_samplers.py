from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arclight.data.samplers import BatchIndices, EvalSampler, Shard, TrainSampler, generator, prefetch
from arclight.errors import InputError

SHARDS = [(1, 1), (2, 1), (1, 3), (3, 2), (4, 3)]  # processes, accumulated parts


def epoch_of(order: TrainSampler) -> list[list[int]]:
    return [rows.indices.tolist() for rows in order]


def numbers(*key: int) -> list[float]:
    return torch.rand(4, generator=generator(*key)).tolist()


def test_a_generator_follows_every_number_of_its_key_and_their_order() -> None:
    assert numbers(0, 1, 2) == numbers(0, 1, 2)
    different = [numbers(*key) for key in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (2, 1, 0), (0, 1)]]
    assert all(a != b for a, b in itertools.combinations(different, 2))


def test_an_epoch_takes_every_row_at_most_once_and_leaves_out_less_than_a_batch() -> None:
    rows = [row for batch in epoch_of(TrainSampler(23, 5, seed=0)) for row in batch]
    assert len(rows) == 20
    assert len(set(rows)) == 20
    assert set(rows) <= set(range(23))


def test_seed_and_epoch_choose_the_shuffle_and_seed_0_is_a_seed() -> None:
    order = TrainSampler(50, 10, seed=0)
    first = epoch_of(order)
    assert epoch_of(TrainSampler(50, 10, seed=0)) == first
    assert epoch_of(TrainSampler(50, 10, seed=1)) != first
    order.set_epoch(1)
    assert epoch_of(order) != first
    order.set_epoch(0)
    assert epoch_of(order) == first


@pytest.mark.parametrize(("world_size", "accumulation"), SHARDS)
def test_processes_and_parts_together_take_the_batch_of_one_process(world_size: int, accumulation: int) -> None:
    batch_size = 24
    alone = epoch_of(TrainSampler(100, batch_size, seed=3))
    shards = [
        list(TrainSampler(100, batch_size, seed=3, shard=Shard(rank, world_size, accumulation))) for rank in range(world_size)
    ]
    assert {len(rows) for rows in shards} == {4 * accumulation}
    for step in range(4):
        parts = [shard[step * accumulation + part] for part in range(accumulation) for shard in shards]
        assert [row for rows in parts for row in rows.indices.tolist()] == alone[step]
        for rows in parts:
            assert rows.step == step
            assert rows.whole.tolist() == alone[step]
            assert torch.equal(rows.whole[rows.offset : rows.offset + len(rows.indices)], rows.indices)


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_resumed_order_takes_the_rest_of_the_epoch_then_whole_epochs(stop: int) -> None:
    shard = Shard(accumulation=2)
    whole = TrainSampler(48, 12, seed=0, shard=shard)
    expected = epoch_of(whole)
    stopped = TrainSampler(48, 12, seed=0, shard=shard)
    taken = [rows.indices.tolist() for rows in itertools.islice(stopped, stop)]
    resumed = TrainSampler(48, 12, seed=0, shard=shard)
    resumed.load_state_dict(stopped.state_dict())
    assert taken + epoch_of(resumed) == expected
    whole.set_epoch(1)
    resumed.set_epoch(1)
    assert epoch_of(resumed) == epoch_of(whole)


def test_a_finished_epoch_saves_the_beginning_of_the_next() -> None:
    order = TrainSampler(20, 5, seed=0)
    epoch_of(order)
    resumed = TrainSampler(20, 5, seed=0)
    resumed.load_state_dict(order.state_dict())
    resumed.set_epoch(1)
    assert len(epoch_of(resumed)) == 4


def test_a_pass_that_is_given_up_does_not_shift_the_next_epoch() -> None:
    order = TrainSampler(20, 5, seed=0)
    next(iter(order))
    order.set_epoch(1)
    fresh = TrainSampler(20, 5, seed=0)
    fresh.set_epoch(1)
    assert epoch_of(order) == epoch_of(fresh)


def test_a_batch_larger_than_the_split_is_an_error_that_names_the_largest() -> None:
    with pytest.raises(
        InputError, match=r"data\.batch_size=64 is larger than the training split of 40 samples; take .*=40 or less"
    ):
        TrainSampler(40, 64, seed=0)


def test_a_batch_that_does_not_divide_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        TrainSampler(100, 10, seed=0, shard=Shard(0, 3, 2))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 2, 3, 7, 13, 24, 25])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_evaluation_takes_every_row_once_on_any_number_of_processes(num_samples: int, batch_size: int, world_size: int) -> None:
    rows = torch.arange(num_samples) * 2
    orders = [EvalSampler(rows, batch_size, shard=Shard(rank, world_size)) for rank in range(world_size)]
    passes = [list(order) for order in orders]
    assert {len(batches) for batches in passes} == {len(orders[0])}
    seen: list[int] = []
    for step in zip(*passes, strict=True):
        assert len({len(part.indices) for part in step}) == 1  # ddp gathers equal shapes
        assert len(step[0].indices) <= batch_size
        for part in step:
            assert torch.equal(part.whole[part.offset : part.offset + len(part.indices)], part.indices)
            seen += part.indices[part.indices >= 0].tolist()
    assert seen == rows.tolist()  # once each, and in their order


def test_evaluation_of_nothing_has_no_batches() -> None:
    order = EvalSampler(torch.arange(0), 5)
    assert (len(order), list(order)) == (0, [])


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_who_looks_ahead_begins_so_many_parts_early_and_counts_what_is_given_out(depth: int) -> None:
    order, plain = TrainSampler(50, 5, seed=0), TrainSampler(50, 5, seed=0)
    begun: list[BatchIndices] = []
    for taken, (_, number) in enumerate(prefetch(order, lambda rows: begun.append(rows) or len(begun), depth), 1):
        assert number == taken
        assert len(begun) == min(taken + depth, 10)
        assert order.state_dict() == {"epoch": 0, "position": taken % 10}
    assert [rows.indices.tolist() for rows in begun] == epoch_of(plain)
    assert begun[-1].step == 9


def test_who_looks_ahead_goes_on_where_a_stop_was() -> None:
    stopped, resumed = (TrainSampler(50, 5, seed=0, shard=Shard(0, 1, 5)) for _ in range(2))
    begun = [rows.indices.tolist() for rows, _ in itertools.islice(prefetch(stopped, id, 4), 7)]
    resumed.load_state_dict(stopped.state_dict())
    rest = [rows.indices.tolist() for rows, _ in prefetch(resumed, id, 4)]
    assert begun + rest == epoch_of(TrainSampler(50, 5, seed=0, shard=Shard(0, 1, 5)))


def test_an_evaluation_looks_ahead_too() -> None:
    order = EvalSampler(torch.arange(7), 3)
    assert [rows.indices.tolist() for rows, _ in prefetch(order, id, 2)] == [[0, 1, 2], [3, 4, 5], [6]]


@st.composite
def orders(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Samples, batch, processes, parts, seed that go together."""
    world_size, accumulation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch = world_size * accumulation * draw(st.integers(1, 4))
    return draw(st.integers(batch, 5 * batch)), batch, world_size, accumulation, draw(st.integers(0, 2**31))


@given(orders(), st.integers(0, 5))
def test_each_sample_at_most_once_an_epoch_and_the_same_batches_on_any_number_of_processes(
    made: tuple[int, int, int, int, int], epoch: int
) -> None:
    num_samples, batch, world_size, accumulation, seed = made
    alone = TrainSampler(num_samples, batch, seed=seed)
    alone.set_epoch(epoch)
    batches = [rows.indices.tolist() for rows in alone]
    seen = [row for rows in batches for row in rows]
    assert len(seen) == len(set(seen)) == num_samples // batch * batch
    assert set(seen) <= set(range(num_samples))
    parts = []
    for rank in range(world_size):
        order = TrainSampler(num_samples, batch, seed=seed, shard=Shard(rank, world_size, accumulation))
        order.set_epoch(epoch)
        parts.append(list(order))
    for step, rows in enumerate(batches):
        taken = {part.offset: part.indices.tolist() for own in parts for part in own if part.step == step}
        assert [row for offset in sorted(taken) for row in taken[offset]] == rows


@given(orders(), st.data())
def test_a_pass_that_goes_on_takes_what_the_first_left(made: tuple[int, int, int, int, int], data: st.DataObject) -> None:
    num_samples, batch, world_size, accumulation, seed = made
    shard = Shard(data.draw(st.integers(0, world_size - 1)), world_size, accumulation)
    first, second = (TrainSampler(num_samples, batch, seed=seed, shard=shard) for _ in range(2))
    first.set_epoch(3)
    whole = [rows.indices.tolist() for rows in first]
    stop = data.draw(st.integers(1, len(whole)))
    begun = iter(first)
    taken = [next(begun).indices.tolist() for _ in range(stop)]
    second.load_state_dict(first.state_dict())
    second.set_epoch(3)
    assert taken + [rows.indices.tolist() for rows in second] == (whole if stop < len(whole) else whole * 2)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5))
def test_every_row_is_scored_once_on_any_number_of_processes(num_rows: int, batch: int, world_size: int) -> None:
    rows = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
    passes = [list(EvalSampler(rows, batch, shard=Shard(rank, world_size))) for rank in range(world_size)]
    assert len({len(own) for own in passes}) == 1
    seen = [row for own in passes for part in own for row in part.indices.tolist() if row >= 0]
    assert sorted(seen) == list(range(num_rows))
    assert all(len(part.indices) <= batch for own in passes for part in own)
