"""Factors at exact steps, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.optim import schedulers
from arclight.optim.schedulers import constant, cosine, count_steps, one_cycle, steps, warmup_linear


def test_constant() -> None:
    assert [constant(step, 10) for step in (0, 9)] == [1.0, 1.0]
    assert [constant(step, 10, warmup_fraction=0.4) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]


def test_warmup_linear() -> None:
    # 20 steps, 2 of them up: the 18 others go down from 1 to 1/18
    factors = [warmup_linear(step, 20) for step in (0, 1, 2, 11, 19, 20)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.5, 1 / 18, 0.0])


def test_cosine() -> None:
    assert [cosine(step, 8) for step in (0, 4, 8)] == pytest.approx([1.0, 0.5, 0.0])
    assert [cosine(step, 8, floor=0.2) for step in (0, 4, 8)] == pytest.approx([1.0, 0.6, 0.2])
    assert cosine(0, 8, warmup_fraction=0.5) == 0.25


def test_one_cycle() -> None:
    assert [one_cycle(step, 10) for step in (0, 3, 10)] == pytest.approx([0.04, 1.0, 0.0001])
    assert one_cycle(1, 10, warmup_fraction=0.2) == pytest.approx((0.04 + 1) / 2)


def test_steps() -> None:
    assert [steps(step, 8, milestones=[0.5, 0.75]) for step in (0, 3, 4, 5, 6, 7)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", ["constant", "warmup_linear", "cosine", "one_cycle"])
def test_a_fraction_outside_0_to_1_is_told(name: str) -> None:
    with pytest.raises(InputError, match="scheduler.warmup_fraction=1.5 must lie between 0 and 1"):
        getattr(schedulers, name)(0, 10, warmup_fraction=1.5)


def test_a_milestone_outside_0_to_1_is_told() -> None:
    with pytest.raises(InputError, match="scheduler.milestones holds 30"):
        steps(0, 10, milestones=[0.5, 30])


def trainer(**settings: Any) -> Any:
    defaults = {
        "overfit_batches": 0.0,
        "limit_train_batches": 1.0,
        "accumulate_grad_batches": 1,
        "max_epochs": 3,
        "max_steps": -1,
    }
    return SimpleNamespace(**{**defaults, **settings})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 30),
        ({"max_steps": 7}, 7),
        ({"max_epochs": -1, "max_steps": 7}, 7),
        ({"limit_train_batches": 0.5}, 15),
        ({"limit_train_batches": 4}, 12),
        ({"limit_train_batches": 40}, 30),
        ({"overfit_batches": 2}, 6),
        ({"accumulate_grad_batches": 4}, 30),
        ({"accumulate_grad_batches": 4, "limit_train_batches": 6}, 6),
    ],
)
def test_steps_of_a_fit(settings: dict[str, Any], expected: int) -> None:
    assert count_steps(trainer(**settings), 10) == expected


def test_a_fit_without_end_is_told() -> None:
    with pytest.raises(InputError, match=r"set trainer.max_epochs or trainer.max_steps"):
        count_steps(trainer(max_epochs=-1), 10)
