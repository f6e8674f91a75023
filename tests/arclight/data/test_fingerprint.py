"""A fingerprint is equal for equal content, and not for other content."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arclight.data.fingerprint import fingerprint_of, hash_of


class Noisy:
    """Samples with augmentation."""

    def __init__(self, offset: float, generator: np.random.Generator | None = None) -> None:
        self.offset, self.generator = offset, generator

    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < 5:
            raise IndexError(row)
        own = 0.0 if self.generator is None else self.generator.random()
        return {"image": torch.rand(2) + random.random() + np.random.random() + self.offset + own, "label": "a"}


def test_equal_content_has_equal_fingerprints_whatever_was_drawn_before() -> None:
    first = fingerprint_of([Noisy(0.0)])
    torch.rand(7)
    assert first == fingerprint_of([Noisy(0.0)])
    assert first != fingerprint_of([Noisy(1.0)])
    assert first != fingerprint_of([Noisy(0.0), Noisy(0.0)])


def test_the_generators_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fingerprint_of([Noisy(0.0)])
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("datasets", [[], [Noisy(0.0, np.random.default_rng())], [[object()]], [iter([1])]])
def test_what_cannot_be_compared_has_none(datasets: Any) -> None:
    assert fingerprint_of(datasets) is None


VALUES = [
    *(None, 1, 1.0, True, "1", b"1", [1], [[1]], {"a": 1}, {"b": 1}, np.float32(1), np.ones(2), np.ones((1, 2))),
    *(torch.ones(2), torch.ones(2, dtype=torch.bfloat16), torch.ones(1, 2), torch.tensor(1.0)),
    *(Image.new("L", (2, 1)), Image.new("L", (1, 2)), Image.new("L", (2, 1), 1)),
]


def test_values_of_any_kind_differ() -> None:
    assert len({hash_of([value]) for value in VALUES}) == len(VALUES)


@pytest.mark.parametrize("value", [object(), np.array([object()])])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="object"):
        hash_of([value])
