"""Learning-rate schedules: pure functions (step, total_steps) -> factor on the optimizer's learning rate.

`step` counts optimizer steps from 0; `warmup_fraction` is the share of all steps over which the factor rises in a straight
line from near 0 to 1 (step 0 already moves: its factor is 1 / warm-up steps).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from arclight.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def warmup(step: int, total_steps: int, fraction: float) -> tuple[float, float]:
    """The factor of the warm-up (1 once it is over) and how far the rest is done, 0..1.

    Raises:
        InputError: when the fraction is outside 0..1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"scheduler.warmup_fraction={fraction} must lie between 0 and 1")
    warmup_steps = round(fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps, 0.0
    return 1.0, min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))


def constant(step: int, total_steps: int, *, warmup_fraction: float = 0.0) -> float:
    """1 after the warm-up."""
    return warmup(step, total_steps, warmup_fraction)[0]


def warmup_linear(step: int, total_steps: int, *, warmup_fraction: float = 0.1) -> float:
    """Up in a straight line, then down in a straight line to 0.

    Source: Devlin et al. 2018, BERT, appendix A.2.
    """
    rise, done = warmup(step, total_steps, warmup_fraction)
    return rise * (1.0 - done)


def cosine(step: int, total_steps: int, *, warmup_fraction: float = 0.0, floor: float = 0.0) -> float:
    """Half a cosine wave from 1 down to `floor`.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    rise, done = warmup(step, total_steps, warmup_fraction)
    return rise * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done)))


def one_cycle(step: int, total_steps: int, *, warmup_fraction: float = 0.3, start: float = 0.04, end: float = 0.0001) -> float:
    """Half a cosine wave up from `start` to 1, then half a cosine wave down to `end`.

    Source: Smith and Topin 2018, Super-Convergence; cosine legs in place of straight ones.
    """
    warmup(step, total_steps, warmup_fraction)
    top = warmup_fraction * total_steps
    done = step / max(top, 1e-9) if step < top else (step - top) / max(total_steps - top, 1)
    low, high = (start, 1.0) if step < top else (1.0, end)
    return low + (high - low) * 0.5 * (1.0 - math.cos(math.pi * min(1.0, done)))


def steps(step: int, total_steps: int, *, milestones: list[float], decay: float = 0.1) -> float:
    """1, multiplied by `decay` at each milestone, which is a share of the training, such as [0.5, 0.75].

    Raises:
        InputError: when a milestone is outside 0..1.
    """
    if wrong := [milestone for milestone in milestones if not 0 <= milestone <= 1]:
        raise InputError(f"scheduler.milestones holds {wrong[0]}: each is a share of the training, between 0 and 1")
    passed = sum(step >= milestone * total_steps for milestone in milestones)
    return float(decay**passed)


def count_steps(trainer: Trainer, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole fit, from the data and the trainer's limits.

    Lightning's `estimated_stepping_batches` gives the same, but reading it sets up the loaders early and drops the state of a
    resumable one (https://github.com/Lightning-AI/pytorch-lightning/issues/20550).

    Raises:
        InputError: when the trainer has no end.
    """
    limit = trainer.overfit_batches or trainer.limit_train_batches  # type: ignore[attr-defined]  # set outside __init__
    parts = steps_per_epoch * trainer.accumulate_grad_batches
    limited = int(parts * limit) if isinstance(limit, float) else min(parts, limit)
    steps_per_limited_epoch = -(-limited // trainer.accumulate_grad_batches)
    ends = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        ends.append(trainer.max_epochs * steps_per_limited_epoch)
    if trainer.max_steps is not None and trainer.max_steps >= 0:
        ends.append(trainer.max_steps)
    if not ends:
        raise InputError("a schedule needs to know the end: set trainer.max_epochs or trainer.max_steps to 0 or more")
    return max(1, min(ends))
