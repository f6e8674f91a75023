"""The ranges of settings that are read long after data and net have been loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MAX_TIME = re.compile(r"\d+:\d\d:\d\d:\d\d")


class Range(NamedTuple):
    """From `least` to `most`, both included; `share` of whole numbers that stand for a count and fractions for a share."""

    least: float
    most: float = math.inf
    is_share: bool = False

    def holds(self, value: float) -> bool:
        if self.is_share and isinstance(value, float):
            return 0 <= value <= 1
        return self.least <= value <= self.most

    def __str__(self) -> str:
        if self.is_share:
            return f"a whole number of {self.least:g} or more, or a share from 0.0 to 1.0"
        if math.isinf(self.most):
            return f"{self.least:g} or more"
        return f"from {self.least:g} to {self.most:g}"


TRAINER = {
    "max_epochs": Range(-1),
    "min_epochs": Range(0),
    "max_steps": Range(-1),
    "min_steps": Range(0),
    "gradient_clip_val": Range(0),
    "accumulate_grad_batches": Range(1),
    "check_val_every_n_epoch": Range(1),
    "val_check_interval": Range(1, is_share=True),
    "limit_train_batches": Range(0, is_share=True),
    "limit_val_batches": Range(0, is_share=True),
    "limit_test_batches": Range(0, is_share=True),
    "overfit_batches": Range(0, is_share=True),
    "log_every_n_steps": Range(0),
}


def out_of_range(settings: Mapping[str, Any], ranges: Mapping[str, Range], path: str) -> Iterator[str]:
    """The settings that are numbers outside of their ranges."""
    for name, allowed in ranges.items():
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not allowed.holds(value):
            yield f"{path}.{name}={value} must be {allowed}"


def trainer_errors(trainer: Mapping[str, Any]) -> Iterator[str]:
    """What Lightning's Trainer, or the schedule that asks it for its end, would not take."""
    yield from out_of_range(trainer, TRAINER, "trainer")
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    has_end = any(isinstance(end, int) and end >= 0 for end in (epochs, steps))
    if not has_end and not trainer.get("fast_dev_run") and all(end is None or end == -1 for end in (epochs, steps)):
        yield f"trainer.max_epochs={epochs}: a schedule needs to know the end; give a number of epochs, or trainer.max_steps"
    if isinstance(text := trainer.get("max_time"), str) and not MAX_TIME.fullmatch(text):
        yield f"trainer.max_time={text} must have the form DD:HH:MM:SS, such as 00:12:00:00 for twelve hours"
    if trainer.get("gradient_clip_algorithm") not in (None, "norm", "value"):
        yield f"trainer.gradient_clip_algorithm={trainer['gradient_clip_algorithm']} must be norm or value"
