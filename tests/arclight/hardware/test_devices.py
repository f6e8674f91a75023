"""How the global batch is divided over processes and micro-batches; test_plan.py covers the other decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.errors import InputError
from arclight.hardware.devices import accumulation_steps


@pytest.mark.parametrize(
    ("batch_size", "world_size", "max_per_device", "steps"),
    [(64, 1, None, 1), (64, 8, None, 1), (64, 1, 16, 4), (64, 2, 16, 2), (60, 1, 16, 4), (7, 1, 3, 7), (64, 1, 100, 1)],
)
def test_the_batch_is_divided_evenly(batch_size: int, world_size: int, max_per_device: int | None, steps: int) -> None:
    assert accumulation_steps(batch_size, world_size, max_per_device) == steps


def test_an_indivisible_batch_is_reported_with_the_nearest_sizes() -> None:
    with pytest.raises(InputError, match="data.batch_size=30 is not divisible by 4 processes; nearest sizes: 28 or 32"):
        accumulation_steps(30, 4, None)
    with pytest.raises(InputError, match="nearest sizes: 4"):
        accumulation_steps(2, 4, None)


def test_the_requested_steps_count_where_no_more_are_needed() -> None:
    assert accumulation_steps(64, 2, None, 4) == 4
    assert accumulation_steps(64, 2, 16, 8) == 2
    assert accumulation_steps(None, 2, None, 4) == accumulation_steps("many", 2, 16, 4) == 4
    with pytest.raises(InputError, match="by 2 processes times trainer.accumulate_grad_batches=3; leave the latter out"):
        accumulation_steps(64, 2, None, 3)


@given(st.integers(1, 2000), st.integers(1, 16), st.none() | st.integers(1, 300))
def test_micro_batches_add_up_to_the_batch(batch_size: int, world_size: int, most: int | None) -> None:
    if batch_size % world_size:
        with pytest.raises(InputError, match="is not divisible by"):
            accumulation_steps(batch_size, world_size, most)
        return
    steps = accumulation_steps(batch_size, world_size, most)
    per_process = batch_size // world_size
    assert per_process % steps == 0
    assert per_process // steps <= (most or per_process)
    fewer = [number for number in range(1, steps) if per_process % number == 0]
    assert all(per_process // number > (most or per_process) for number in fewer)
