from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from arclight.data.seeding import SeededDataset, mix, next_draws, seed_generators


class Sometimes(Dataset[Any]):
    """Draws for every third sample, and counts how often samples are read."""

    reads = 0

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[int, float]:
        self.reads += 1
        return index, random.random() if index % 3 == 0 else 0.0


def test_all_generators_are_seeded() -> None:
    seed_generators(5)
    first = next_draws()
    assert (random.random(), np.random.random(), float(torch.rand(()))) != first
    seed_generators(5)
    assert next_draws() == first
    seed_generators(6)
    assert all(now != before for now, before in zip(next_draws(), first, strict=True))


def test_mixed_seeds_differ() -> None:
    seeds = {mix(base, place) for base in range(20) for place in range(200)}
    assert len(seeds) == 20 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_sample_depends_on_its_place_alone_whichever_batch_it_is_in() -> None:
    keys = [(77, place, place % 9) for place in range(18)]
    alone = [SeededDataset(Sometimes()).__getitems__([key])[0] for key in keys]
    assert SeededDataset(Sometimes()).__getitems__(keys) == alone
    dataset = SeededDataset(Sometimes())
    assert [sample for start in range(0, 18, 5) for sample in dataset.__getitems__(keys[start : start + 5])] == alone
    assert [dataset[key] for key in keys] == alone


def test_a_data_set_that_draws_nothing_is_read_once() -> None:
    dataset = SeededDataset(Sometimes())
    dataset.__getitems__([(1, 0, 1), (1, 1, 2)])
    assert dataset.dataset.reads == 2
    dataset.__getitems__([(1, 2, 0), (1, 3, 2)])  # draws: read again with a seed for each sample
    assert dataset.dataset.reads == 6


def test_attributes_are_those_of_the_users_data_set() -> None:
    assert SeededDataset(Sometimes()).reads == 0
