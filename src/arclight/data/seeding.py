"""Random numbers of a user's data set and steps: functions of seed, epoch and place, whatever was drawn before."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from arclight.data.samplers import DROPOUT, derive_seed

MIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def seed_generators(seed: int, device: torch.device | None = None) -> None:
    """Seeds `random`, `numpy` and `torch`, and torch's generator of the device; no device is waited for."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # not torch.manual_seed: it records a stack trace for every kind of device that is not in use
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def step_seed(seed: int, epoch: int, micro_batch: int, rank: int) -> int:
    """Returns the seed of what is drawn in a step: a resumed run draws the same, whatever was drawn before."""
    return derive_seed((seed, epoch, micro_batch, DROPOUT, rank))


def mix(base: int, number: int) -> int:
    """Returns 63 bits that depend on both numbers; far cheaper than `derive_seed`. Source: Steele 2014, splitmix64."""
    value = (base + (number + 1) * MIX[0]) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * MIX[1]) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * MIX[2]) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1


class SeededDataset(Dataset[Any]):
    """A user's map-style data set, asked with (base, place, index): what it draws for a sample depends on these alone.

    Seeding costs more than many a sample. So a batch is first read with one seed; if something was drawn meanwhile, it is read
    again with a seed for each sample, and so are all later ones.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.draws = False

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)  # for a worker_init_fn that looks at `get_worker_info().dataset`

    def __getitem__(self, key: Any) -> Any:
        base, place, index = key
        seed_generators(mix(base, place))
        return self.dataset[index]

    def __getitems__(self, keys: Sequence[tuple[int, int, Any]]) -> list[Any]:
        dataset: Any = self.dataset
        indices = [index for _, _, index in keys]
        while type(dataset) is Subset:
            indices, dataset = [dataset.indices[index] for index in indices], dataset.dataset
        first_seed = mix(*keys[0][:2])
        if callable(getattr(dataset, "__getitems__", None)):  # it reads whole batches
            seed_generators(first_seed)
            return list(dataset.__getitems__(indices))
        if not self.draws:
            seed_generators(0)
            samples = [dataset[index] for index in indices]
            if next_draws() == untouched_draws():
                seed_generators(first_seed)  # for a collate function that draws
                return samples
            self.draws = True
        samples = []
        for (base, place, _), index in zip(keys, indices, strict=True):
            seed_generators(mix(base, place))
            samples.append(dataset[index])
        return samples


def next_draws() -> tuple[float, float, float]:
    """Returns the next number of each generator that `seed_generators` seeds."""
    return random.random(), np.random.random(), torch.rand((), dtype=torch.float64).item()  # noqa: S311 - no secret


@functools.cache
def untouched_draws() -> tuple[float, float, float]:
    """Returns what `next_draws` returns right after `seed_generators(0)`."""
    seed_generators(0)
    return next_draws()
