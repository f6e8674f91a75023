from __future__ import annotations

import pytest
import torch

from arclight.data.splits import num_held_out, split
from arclight.errors import InputError


@pytest.mark.parametrize(("validation", "expected"), [(3, 3), (0.25, 5), (0.05, 1), (19, 19)])
def test_a_split_has_every_row_once(validation: int | float, expected: int) -> None:
    train, val = split(20, validation, 0)
    assert len(val) == expected
    assert sorted(train.tolist() + val.tolist()) == list(range(20))
    assert train.tolist() == sorted(train.tolist())
    assert val.tolist() == sorted(val.tolist())


def test_the_split_follows_its_seed() -> None:
    assert torch.equal(split(100, 20, 0)[1], split(100, 20, 0)[1])
    assert not torch.equal(split(100, 20, 0)[1], split(100, 20, 1)[1])


@pytest.mark.parametrize("share", [0, 10, 11, -1, 0.0, 1.0, 0.01, 0.99, 1.5, -0.5])
def test_a_split_that_leaves_nothing_is_an_error(share: int | float) -> None:
    message = rf"data\.validation={share} cannot split 10 samples into two non-empty sets; take a count from 1 to 9 or a"
    with pytest.raises(InputError, match=message):
        split(10, share, 0)
    with pytest.raises(InputError, match=r"data\.test="):
        num_held_out(10, share, name="data.test")


def test_each_group_gives_the_same_fraction_and_keeps_a_row() -> None:
    groups = [number % 30 for number in range(60)] + [30] * 40
    kept, drawn = split(100, 0.3, seed=0, groups=groups)
    assert sorted([*kept.tolist(), *drawn.tolist()]) == list(range(100))
    assert len(drawn) == 30
    counts = [sum(groups[row] == group for row in drawn.tolist()) for group in range(31)]
    assert max(counts[:30]) == 1  # of two
    assert 10 <= counts[30] <= 30
    assert not torch.equal(split(100, 0.3, seed=1, groups=groups)[1], drawn)
