"""Which rows are held out of a data set that brings no validation or test split of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from arclight.data.samplers import SPLIT, generator
from arclight.errors import InputError


def held_out(num_samples: int, share: int | float, *, name: str) -> int:
    """How many of `num_samples` a count or a share sets aside.

    Args:
        num_samples: all there are.
        share: a count from 1 on, or a share between 0 and 1.
        name: of the setting, for the message.

    Raises:
        InputError: when nothing would be left on one of the two sides.
    """
    count = share if isinstance(share, int) else round(share * num_samples) if 0 < share < 1 else 0
    if not 0 < count < num_samples:
        raise InputError(
            f"{name}={share} does not cut {num_samples} samples into two parts; take a count from 1 to {num_samples - 1} or a "
            "share between 0 and 1, such as 0.1"
        )
    return count


def split(num_samples: int, validation: int | float, seed: int, *, name: str = "data.validation") -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to validate on, each int64 and rising; drawn by `seed`, whatever the run's own seed is.

    Raises:
        InputError: when one of the two would be empty.
    """
    count = held_out(num_samples, validation, name=name)
    shuffled = torch.randperm(num_samples, generator=generator(seed, 0, 0, SPLIT))
    return shuffled[count:].sort().values, shuffled[:count].sort().values
