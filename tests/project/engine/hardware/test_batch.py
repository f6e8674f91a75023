"""The global batch over processes and parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.errors import InputError
from arclight.hardware import accumulation_steps


@pytest.mark.parametrize(
    ("batch_size", "world_size", "max_per_device", "parts"),
    [(64, 1, None, 1), (64, 8, None, 1), (64, 1, 16, 4), (64, 2, 16, 2), (60, 1, 16, 4), (7, 1, 3, 7), (64, 1, 100, 1)],
)
def test_the_batch_is_spread_evenly(batch_size: int, world_size: int, max_per_device: int | None, parts: int) -> None:
    assert accumulation_steps(batch_size, world_size, max_per_device) == parts


def test_a_batch_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(
        InputError, match="data.batch_size=30 does not divide over 4 processes; the nearest that do are 28 or 32"
    ):
        accumulation_steps(30, 4, None)
    with pytest.raises(InputError, match="the nearest that do are 4"):
        accumulation_steps(2, 4, None)


@given(st.integers(1, 2000), st.integers(1, 16), st.none() | st.integers(1, 300))
def test_the_parts_make_up_the_batch(batch_size: int, world_size: int, most: int | None) -> None:
    if batch_size % world_size:
        with pytest.raises(InputError, match="does not divide over"):
            accumulation_steps(batch_size, world_size, most)
        return
    parts = accumulation_steps(batch_size, world_size, most)
    share = batch_size // world_size
    assert share % parts == 0
    assert share // parts <= (most or share)
    fewer = [number for number in range(1, parts) if share % number == 0]
    assert all(share // number > (most or share) for number in fewer)
