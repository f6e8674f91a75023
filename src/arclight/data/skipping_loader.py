"""Resumable loading for everything that is not map-style: iterable data sets, loaders of the user's own, lists of batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import torch

from arclight.data.loader_errors import check_batch, explain_loader_errors
from arclight.data.samplers import DROPOUT, derive_seed
from arclight.data.seeding import mix, seed_generators
from arclight.distributed.collectives import gather_objects


class SkippingLoader:
    """Iterates over a user's loader and resumes inside an epoch: by its state if it has one, else by skipping batches.

    Skipping is exact where the loader's order depends on nothing but the generators, which are seeded for each batch.

    Args:
        loader: any iterable of batches.
        seed: of the run.
        rank: of this process, in the seeds.
        is_train: evaluation has the same random numbers in every epoch.
        num_ahead: returns how many of the yielded batches wait in Lightning's fetcher.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        seed: int,
        rank: int,
        is_train: bool,
        num_ahead: Callable[[], int],
        device: torch.device | None = None,
    ) -> None:
        self.loader = loader
        self.seed = seed
        self.rank = rank
        self.is_train = is_train
        self.num_ahead = num_ahead
        self.device = device
        self.epoch = 0
        self.position = 0  # batches of this pass that were yielded
        self.batch_sampler = None  # Lightning reads it
        self._start: dict[str, Any] = {"epoch": -1}
        self.is_used = False  # whether a batch of the last pass was trained on
        self._before: Any = None  # the state before the last pass
        self._recent: list[tuple[int, Any]] = []  # position and state after each of the last batches

    @property
    def sampler(self) -> SkippingLoader:
        """Itself: Lightning calls its `set_epoch`. Not an attribute, which would be a cycle of references."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name in ("loader", "__len__"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    @property
    def stateful(self) -> Any:
        """The loader, or its data set where no worker holds the state, if they have `state_dict` and `load_state_dict`."""
        dataset = None if getattr(self.loader, "num_workers", 1) else getattr(self.loader, "dataset", None)
        return next(
            (part for part in (self.loader, dataset) if hasattr(part, "state_dict") and hasattr(part, "load_state_dict")), None
        )

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch, in the user's sampler and data set, too."""
        if epoch != self.epoch:
            self.position, self._recent = 0, []
        self.epoch = epoch
        for part in (self.loader, getattr(self.loader, "dataset", None), getattr(self.loader, "sampler", None)):
            if callable(select := getattr(part, "set_epoch", None)):
                select(epoch)

    def __iter__(self) -> Iterator[Any]:
        base = derive_seed((self.seed, self.epoch if self.is_train else 0, int(self.is_train), DROPOUT, self.rank))
        first = 0
        if self.is_train and self._start["epoch"] == self.epoch:
            first = self._start["batches"]
            if self.stateful is not None and first:
                self.stateful.load_state_dict(self._start["states"][self.rank])
        skipped = 0 if self.stateful is not None else first
        self._start = {"epoch": -1}
        if self.stateful is not None and not first:
            if not self.is_used and self._before is not None:  # Lightning fetched ahead and begins again
                self.stateful.load_state_dict(self._before)
            self._before = copy.deepcopy(self.stateful.state_dict())
        self.is_used = False
        seed_generators(mix(base, 0), self.device)
        with explain_loader_errors(self.loader):
            iterator = iter(self.loader)
        self.position, self._recent = first, []
        for number in count(first - skipped):
            seed_generators(mix(base, 2 * number), self.device)
            with explain_loader_errors(self.loader):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            if number < first:
                continue
            check_batch(batch, self.loader, number)
            self.position = number + 1
            if self.is_train and self.stateful is not None:
                self._recent = [*self._recent[-1:], (self.position, self.stateful.state_dict())]
            seed_generators(mix(base, 2 * number + 1), self.device)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Returns the position, and the states in all processes, each of which must call this."""
        own = next((state for position, state in self._recent if position == self.consumed), None)
        states = gather_objects(own) if self.stateful is not None else None
        return {"epoch": self.epoch, "batches": self.consumed, "states": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lets the next pass begin where the saved one stopped, if it is of the same epoch."""
        self._start = dict(state)

    @property
    def consumed(self) -> int:
        """Batches of this pass that were trained on; Lightning fetches one ahead from a loader without a length."""
        return max(0, self.position - self.num_ahead())
