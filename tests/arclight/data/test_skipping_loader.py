from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from arclight.data.skipping_loader import SkippingLoader


class Counter:
    """A stateful loader of the user's own."""

    def __init__(self) -> None:
        self.number = 0

    def __iter__(self) -> Iterator[tuple[int, float]]:
        while self.number < 6:
            self.number += 1
            yield self.number, float(torch.rand(()))
        self.number = 0

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]


class Drawing:
    """Six batches of random numbers, without a state."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return ((number, float(torch.rand(()))) for number in range(6))


def wrapped(loader: Iterable[Any], rank: int = 0, ahead: int = 0, **settings: Any) -> SkippingLoader:
    return SkippingLoader(loader, seed=3, rank=rank, num_ahead=lambda: ahead, **{"is_train": True, **settings})


@pytest.mark.parametrize("kind", [Counter, Drawing])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_epoch_continues_with_the_same_batches(kind: type, stop: int) -> None:
    whole = list(wrapped(kind()))
    stopped = wrapped(kind())
    batches = iter(stopped)
    for _ in range(stop):
        next(batches)
    resumed = wrapped(kind())
    resumed.load_state_dict(stopped.state_dict())
    torch.rand(5)  # what else was drawn does not matter
    assert list(resumed) == whole[stop:]


def test_a_batch_that_was_fetched_ahead_is_not_counted() -> None:
    whole = list(wrapped(Counter()))
    stopped = wrapped(Counter(), ahead=1)
    batches = iter(stopped)
    for _ in range(3):
        next(batches)
    assert stopped.state_dict()["batches"] == 2
    resumed = wrapped(Counter())
    resumed.load_state_dict(stopped.state_dict())
    assert list(resumed) == whole[2:]


def test_a_state_of_another_epoch_is_not_used() -> None:
    stopped = wrapped(Drawing())
    next(iter(stopped))
    resumed = wrapped(Drawing())
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(1)
    assert len(list(resumed)) == 6


def test_epochs_and_processes_draw_other_numbers_but_evaluations_the_same() -> None:
    def drawn(epoch: int, **settings: Any) -> list[Any]:
        loader = wrapped(Drawing(), **settings)
        loader.set_epoch(epoch)
        return list(loader)

    assert drawn(0) != drawn(1)
    assert drawn(0) != drawn(0, rank=1)
    assert drawn(0, is_train=False) == drawn(1, is_train=False)
