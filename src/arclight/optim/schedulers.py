"""Learning-rate schedulers: the shipped recipes and any scheduler of torch.

A recipe is a pure function (step, total_steps) -> factor on the optimizer's learning rate, where `step` counts optimizer steps
from 0. `warmup_fraction` is the fraction of all steps over which the factor rises linearly to 1; step 0 already has
1 / warm-up steps.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from arclight.config.instantiate import build
from arclight.errors import InputError
from arclight.interfaces import Monitor

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Recipe = Callable[[int, int], float]
Interval = Literal["step", "epoch"]


@dataclass(frozen=True)
class TorchScheduler:
    """A scheduler of torch that is created with the optimizer; `interval` is how often it steps."""

    make: functools.partial[LRScheduler]
    interval: Interval


Scheduler = Recipe | TorchScheduler


def build_scheduler(config: Mapping[str, Any], *, is_trusted: bool = True) -> Scheduler:
    """Builds the scheduler of the config; `interval` is "step" by default, and "epoch" for ReduceLROnPlateau.

    Raises:
        InputError: when the target, an argument or the interval is wrong.
    """
    interval: Any = config.get("interval")
    scheduler: Any = build(without_interval(config), "scheduler", is_trusted=is_trusted)
    target = getattr(scheduler, "func", None)
    if not (inspect.isclass(target) and issubclass(target, LRScheduler)):
        if interval not in (None, "step"):
            message = f"scheduler.interval={interval} applies to schedulers of torch; the recipes count steps"
            raise InputError(message, key="scheduler.interval")
        return scheduler
    allowed: tuple[Interval, ...] = ("epoch",) if target is ReduceLROnPlateau else ("step", "epoch")
    interval = interval or allowed[0]
    if interval not in allowed:
        raise InputError(
            f"scheduler.interval={interval} must be {' or '.join(allowed)} for {target.__name__}", key="scheduler.interval"
        )
    return TorchScheduler(scheduler, interval)


def torch_scheduler(scheduler: Scheduler) -> functools.partial[LRScheduler] | None:
    """Returns what a module of any origin calls with its optimizer; None for a constant learning rate.

    Raises:
        InputError: for another recipe, which needs the number of steps.
    """
    if isinstance(scheduler, TorchScheduler):
        return scheduler.make
    if getattr(scheduler, "func", None) is constant:
        return None
    raise InputError(
        "scheduler: this recipe counts steps, which only modules of arclight give it; take one of torch, such as "
        "scheduler._target_=torch.optim.lr_scheduler.StepLR",
        key="scheduler",
    )


def without_interval(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config without `interval`, which Lightning reads and the scheduler does not take."""
    return {key: value for key, value in config.items() if key != "interval"}


def try_scheduler(config: Mapping[str, Any]) -> None:
    """Builds the scheduler for an optimizer of one parameter; raises what it raises."""
    optimizer = SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler_config(build_scheduler(config), optimizer, total_steps=100, total_epochs=10, monitor=Monitor("val/loss", "min"))


def scheduler_config(
    scheduler: Scheduler, optimizer: Optimizer, *, total_steps: int, total_epochs: int, monitor: Monitor
) -> dict[str, Any]:
    """Returns the `lr_scheduler` entry of `configure_optimizers`.

    A scheduler that takes `total_steps` or `T_max` gets the length of the fit in its interval, and ReduceLROnPlateau the
    module's monitor, unless the config sets them.
    """
    if not isinstance(scheduler, TorchScheduler):
        return {"scheduler": LambdaLR(optimizer, lambda step: scheduler(step, total_steps)), "interval": "step"}
    total = total_steps if scheduler.interval == "step" else total_epochs
    offered = {"total_steps": total, "T_max": total, "mode": monitor.mode}
    if scheduler.make.func is not ReduceLROnPlateau:
        del offered["mode"]  # of CyclicLR it is something else
    taken = inspect.signature(scheduler.make.func).parameters
    given = {key: value for key, value in offered.items() if key in taken and key not in scheduler.make.keywords}
    return {"scheduler": scheduler.make(optimizer, **given), "interval": scheduler.interval, "monitor": monitor.metric}


def warmup(step: int, total_steps: int, fraction: float) -> tuple[float, float]:
    """Returns the factor of the warm-up (1 once it is over) and how far the remaining steps are done, 0..1.

    Raises:
        InputError: when the fraction is outside 0..1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"scheduler.warmup_fraction={fraction} must be between 0 and 1", key="scheduler.warmup_fraction")
    warmup_steps = round(fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps, 0.0
    return 1.0, min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))


def constant(step: int, total_steps: int, *, warmup_fraction: float = 0.0) -> float:
    """Returns 1 after the warm-up."""
    return warmup(step, total_steps, warmup_fraction)[0]


def warmup_linear(step: int, total_steps: int, *, warmup_fraction: float = 0.1) -> float:
    """Returns a factor that rises linearly, then falls linearly to 0.

    Source: Devlin et al. 2018, BERT, appendix A.2.
    """
    rise, done = warmup(step, total_steps, warmup_fraction)
    return rise * (1.0 - done)


def cosine(step: int, total_steps: int, *, warmup_fraction: float = 0.0, floor: float = 0.0) -> float:
    """Returns half a cosine wave from 1 down to `floor`.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    rise, done = warmup(step, total_steps, warmup_fraction)
    return rise * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done)))


def one_cycle(step: int, total_steps: int, *, warmup_fraction: float = 0.3, start: float = 0.04, end: float = 0.0001) -> float:
    """Returns half a cosine wave up from `start` to 1, then half a cosine wave down to `end`.

    Source: Smith and Topin 2018, Super-Convergence; cosine legs in place of straight ones.
    """
    warmup(step, total_steps, warmup_fraction)
    top = warmup_fraction * total_steps
    done = step / max(top, 1e-9) if step < top else (step - top) / max(total_steps - top, 1)
    low, high = (start, 1.0) if step < top else (1.0, end)
    return low + (high - low) * 0.5 * (1.0 - math.cos(math.pi * min(1.0, done)))


def steps(step: int, total_steps: int, *, milestones: list[float], decay: float = 0.1) -> float:
    """Returns 1, multiplied by `decay` at each milestone, a fraction of all steps, such as [0.5, 0.75].

    Raises:
        InputError: when a milestone is outside 0..1.
    """
    if wrong := [milestone for milestone in milestones if not 0 <= milestone <= 1]:
        raise InputError(f"scheduler.milestones contains {wrong[0]}: each is a fraction of all steps, between 0 and 1")
    passed = sum(step >= milestone * total_steps for milestone in milestones)
    return float(decay**passed)


def count_steps(trainer: Trainer, steps_per_epoch: int) -> tuple[int, int]:
    """Returns the optimizer steps and the epochs of the whole fit.

    Lightning's `estimated_stepping_batches` gives the same steps, but reading it sets up the loaders early and drops the state
    of a resumable one (https://github.com/Lightning-AI/pytorch-lightning/issues/20550).

    Raises:
        InputError: when the trainer has no end.
    """
    limit = trainer.overfit_batches or trainer.limit_train_batches  # type: ignore[attr-defined]  # set outside __init__
    batches = steps_per_epoch * trainer.accumulate_grad_batches
    limited = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    per_epoch = -(-limited // trainer.accumulate_grad_batches)
    has_epochs = trainer.max_epochs is not None and trainer.max_epochs >= 0
    has_steps = trainer.max_steps is not None and trainer.max_steps >= 0
    if not has_epochs and not has_steps:
        raise InputError("the scheduler needs an end of training: set trainer.max_epochs or trainer.max_steps to 0 or more")
    ends = [trainer.max_epochs * per_epoch] * has_epochs + [trainer.max_steps] * has_steps  # type: ignore[operator]
    return max(1, min(ends)), max(1, math.ceil(min(ends) / max(1, per_epoch)))
