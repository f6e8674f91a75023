from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arclight.data.samplers import BatchIndices, EvalSampler, Shard, TrainSampler, generator, prefetch
from arclight.errors import InputError

SHARDS = [(1, 1), (2, 1), (1, 3), (3, 2), (4, 3)]  # processes, accumulated micro_batches


def epoch_of(sampler: TrainSampler) -> list[list[int]]:
    return [rows.indices.tolist() for rows in sampler]


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
    sampler = TrainSampler(50, 10, seed=0)
    first = epoch_of(sampler)
    assert epoch_of(TrainSampler(50, 10, seed=0)) == first
    assert epoch_of(TrainSampler(50, 10, seed=1)) != first
    sampler.set_epoch(1)
    assert epoch_of(sampler) != first
    sampler.set_epoch(0)
    assert epoch_of(sampler) == first


@pytest.mark.parametrize(("world_size", "accumulation_steps"), SHARDS)
def test_processes_and_micro_batches_together_take_the_batch_of_one_process(world_size: int, accumulation_steps: int) -> None:
    batch_size = 24
    alone = epoch_of(TrainSampler(100, batch_size, seed=3))
    shards = [
        list(TrainSampler(100, batch_size, seed=3, shard=Shard(rank, world_size, accumulation_steps)))
        for rank in range(world_size)
    ]
    assert {len(rows) for rows in shards} == {4 * accumulation_steps}
    for step in range(4):
        micro_batches = [shard[step * accumulation_steps + micro] for micro in range(accumulation_steps) for shard in shards]
        assert [row for rows in micro_batches for row in rows.indices.tolist()] == alone[step]
        for rows in micro_batches:
            assert rows.step == step
            assert rows.whole.tolist() == alone[step]
            assert torch.equal(rows.whole[rows.offset : rows.offset + len(rows.indices)], rows.indices)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_sampler_takes_the_rest_of_the_epoch_then_whole_epochs(stop: int) -> None:
    shard = Shard(accumulation_steps=2)
    whole = TrainSampler(48, 12, seed=0, shard=shard)
    expected = epoch_of(whole)
    stopped = TrainSampler(48, 12, seed=0, shard=shard)
    taken = [rows.indices.tolist() for rows in itertools.islice(stopped, 2 * stop)]  # complete steps, as a run saves
    resumed = TrainSampler(48, 12, seed=0, shard=shard)
    resumed.load_state_dict(stopped.state_dict())
    assert taken + epoch_of(resumed) == expected
    whole.set_epoch(1)
    resumed.set_epoch(1)
    assert epoch_of(resumed) == epoch_of(whole)


def test_another_number_of_accumulation_steps_takes_the_rest_of_the_epoch() -> None:
    stopped, resumed = TrainSampler(48, 12, seed=0, shard=Shard(accumulation_steps=4)), TrainSampler(48, 12, seed=0)
    assert len(list(itertools.islice(stopped, 8))) == 8
    resumed.load_state_dict(stopped.state_dict())
    assert epoch_of(resumed) == epoch_of(TrainSampler(48, 12, seed=0))[2:]


def test_a_finished_epoch_saves_the_beginning_of_the_next() -> None:
    sampler = TrainSampler(20, 5, seed=0)
    epoch_of(sampler)
    resumed = TrainSampler(20, 5, seed=0)
    resumed.load_state_dict(sampler.state_dict())
    resumed.set_epoch(1)
    assert len(epoch_of(resumed)) == 4


def test_an_abandoned_pass_does_not_shift_the_next_epoch() -> None:
    sampler = TrainSampler(20, 5, seed=0)
    next(iter(sampler))
    sampler.set_epoch(1)
    fresh = TrainSampler(20, 5, seed=0)
    fresh.set_epoch(1)
    assert epoch_of(sampler) == epoch_of(fresh)


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
def test_evaluation_yields_every_row_once_on_any_number_of_processes(
    num_samples: int, batch_size: int, world_size: int
) -> None:
    rows = torch.arange(num_samples) * 2
    samplers = [EvalSampler(rows, batch_size, shard=Shard(rank, world_size)) for rank in range(world_size)]
    passes = [list(sampler) for sampler in samplers]
    assert {len(batches) for batches in passes} == {len(samplers[0])}
    seen: list[int] = []
    for step in zip(*passes, strict=True):
        assert len({len(micro.indices) for micro in step}) == 1  # ddp gathers equal shapes
        assert len(step[0].indices) <= batch_size
        for micro in step:
            assert torch.equal(micro.whole[micro.offset : micro.offset + len(micro.indices)], micro.indices)
            seen += micro.indices[micro.indices >= 0].tolist()
    assert seen == rows.tolist()  # once each, and in their sampler


def test_evaluation_of_nothing_has_no_batches() -> None:
    sampler = EvalSampler(torch.arange(0), 5)
    assert (len(sampler), list(sampler)) == (0, [])


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_prefetching_starts_so_many_micro_batches_early_and_counts_those_yielded(depth: int) -> None:
    sampler, plain = TrainSampler(50, 5, seed=0), TrainSampler(50, 5, seed=0)
    started: list[BatchIndices] = []
    for taken, (_, number) in enumerate(prefetch(sampler, lambda rows: started.append(rows) or len(started), depth), 1):
        assert number == taken
        assert len(started) == min(taken + depth, 10)
        assert sampler.state_dict() == {"epoch": 0, "batches": taken % 10}
    assert [rows.indices.tolist() for rows in started] == epoch_of(plain)
    assert started[-1].step == 9


def test_prefetching_resumes_where_it_stopped() -> None:
    stopped, resumed = (TrainSampler(50, 5, seed=0, shard=Shard(0, 1, 5)) for _ in range(2))
    started = [rows.indices.tolist() for rows, _ in itertools.islice(prefetch(stopped, id, 4), 10)]
    resumed.load_state_dict(stopped.state_dict())
    rest = [rows.indices.tolist() for rows, _ in prefetch(resumed, id, 4)]
    assert started + rest == epoch_of(TrainSampler(50, 5, seed=0, shard=Shard(0, 1, 5)))


def test_an_evaluation_prefetches_too() -> None:
    sampler = EvalSampler(torch.arange(7), 3)
    assert [rows.indices.tolist() for rows, _ in prefetch(sampler, id, 2)] == [[0, 1, 2], [3, 4, 5], [6]]


@st.composite
def samplers(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Samples, batch, processes, micro_batches, seed that go together."""
    world_size, accumulation_steps = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch = world_size * accumulation_steps * draw(st.integers(1, 4))
    return draw(st.integers(batch, 5 * batch)), batch, world_size, accumulation_steps, draw(st.integers(0, 2**31))


@given(samplers(), st.integers(0, 5))
def test_each_sample_at_most_once_an_epoch_and_the_same_batches_on_any_number_of_processes(
    made: tuple[int, int, int, int, int], epoch: int
) -> None:
    num_samples, batch, world_size, accumulation_steps, seed = made
    alone = TrainSampler(num_samples, batch, seed=seed)
    alone.set_epoch(epoch)
    batches = [rows.indices.tolist() for rows in alone]
    seen = [row for rows in batches for row in rows]
    assert len(seen) == len(set(seen)) == num_samples // batch * batch
    assert set(seen) <= set(range(num_samples))
    micro_batches = []
    for rank in range(world_size):
        sampler = TrainSampler(num_samples, batch, seed=seed, shard=Shard(rank, world_size, accumulation_steps))
        sampler.set_epoch(epoch)
        micro_batches.append(list(sampler))
    for step, rows in enumerate(batches):
        taken = {micro.offset: micro.indices.tolist() for own in micro_batches for micro in own if micro.step == step}
        assert [row for offset in sorted(taken) for row in taken[offset]] == rows


@given(samplers(), st.data())
def test_a_resumed_pass_takes_what_the_first_left(made: tuple[int, int, int, int, int], data: st.DataObject) -> None:
    num_samples, batch, world_size, accumulation_steps, seed = made
    shard = Shard(data.draw(st.integers(0, world_size - 1)), world_size, accumulation_steps)
    first, second = (TrainSampler(num_samples, batch, seed=seed, shard=shard) for _ in range(2))
    first.set_epoch(3)
    whole = [rows.indices.tolist() for rows in first]
    stop = data.draw(st.integers(1, len(whole) // accumulation_steps)) * accumulation_steps  # complete steps, as a run saves
    started = iter(first)
    taken = [next(started).indices.tolist() for _ in range(stop)]
    second.load_state_dict(first.state_dict())
    second.set_epoch(3)
    assert taken + [rows.indices.tolist() for rows in second] == (whole if stop < len(whole) else whole * 2)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5))
def test_every_row_is_scored_once_on_any_number_of_processes(num_rows: int, batch: int, world_size: int) -> None:
    rows = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
    passes = [list(EvalSampler(rows, batch, shard=Shard(rank, world_size))) for rank in range(world_size)]
    assert len({len(own) for own in passes}) == 1
    seen = [row for own in passes for micro in own for row in micro.indices.tolist() if row >= 0]
    assert sorted(seen) == list(range(num_rows))
    assert all(len(micro.indices) <= batch for own in passes for micro in own)
