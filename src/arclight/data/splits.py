"""Which rows are held out of a data set that has no validation or test split of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arclight.data.samplers import SPLIT, generator
from arclight.errors import InputError


def num_held_out(num_samples: int, size: int | float, *, name: str) -> int:
    """Returns how many of `num_samples` are held out for a `size` that is a count (int) or a fraction (float).

    Raises:
        InputError: when one of the two sides would be empty; it names the setting `name`.
    """
    count = size if isinstance(size, int) else round(size * num_samples) if 0 < size < 1 else 0
    if not 0 < count < num_samples:
        raise InputError(
            f"{name}={size} cannot split {num_samples} samples into two non-empty sets; take a count from 1 to "
            f"{num_samples - 1} or a fraction between 0 and 1, such as 0.1"
        )
    return count


def split(
    num_samples: int,
    validation: int | float,
    seed: int,
    *,
    name: str = "data.validation",
    groups: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the rows to train on and to validate on, each int64 and ascending; raises as `num_held_out`.

    With `groups`, such as the label of each row, each group gives the same fraction, and keeps a row to train on.
    """
    count = num_held_out(num_samples, validation, name=name)
    shuffled = torch.randperm(num_samples, generator=generator(seed, 0, 0, SPLIT))
    if groups is not None:
        shuffled = shuffled[torch.argsort(_places(torch.tensor(groups)[shuffled]), stable=True)]
    return shuffled[count:].sort().values, shuffled[:count].sort().values


def _places(groups: Tensor) -> Tensor:
    """Returns for each row how much of its group comes before it, 0 to 1; the last row of a group comes after all others."""
    places = torch.empty(len(groups), dtype=torch.float64)
    for group in groups.unique():
        rows = (groups == group).nonzero().flatten()
        places[rows] = (torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows)
        places[rows[-1]] = 1.0
    return places
