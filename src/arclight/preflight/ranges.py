"""Ranges of the Trainer's settings, which Lightning reads long after data and net have been loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from arclight.config.compose import flatten
from arclight.errors import InputError

MAX_TIME = re.compile(r"\d+:\d\d:\d\d:\d\d")
LEAST = {
    **dict.fromkeys(("max_epochs", "max_steps"), -1),
    **dict.fromkeys(("min_epochs", "min_steps", "gradient_clip_val", "log_every_n_steps"), 0),
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch"), 1),
}
LARGEST = 2**31 - 1  # of a whole number in a config
DIGITS = 30  # of a number that a message shows
BATCHES = {  # a whole number counts batches, a fraction is one of the epoch
    "val_check_interval": 1,
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches"), 0),
}


def trainer_errors(trainer: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields what Lightning's Trainer, or a scheduler that needs the number of steps, would refuse."""
    for name, value in trainer.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name in LEAST and value < LEAST[name]:
            yield _error(name, value, f"must be {LEAST[name]} or more")
        if name in BATCHES and not (0 <= value <= 1 if isinstance(value, float) else value >= BATCHES[name]):
            yield _error(name, value, f"must be a whole number of {BATCHES[name]} or more, or a fraction from 0.0 to 1.0")
    ends = [trainer.get(name) for name in ("max_epochs", "max_steps")]
    if not trainer.get("fast_dev_run") and all(end is None or end == -1 for end in ends):
        message = (
            f"trainer.max_epochs={ends[0]}: a scheduler needs to know the end; give a number of epochs, or trainer.max_steps"
        )
        yield InputError(message, key="trainer.max_epochs")
    text = trainer.get("max_time")
    if isinstance(text, int | float) or (isinstance(text, str) and not MAX_TIME.fullmatch(text)):
        rule = "must have the form DD:HH:MM:SS, such as '00:12:00:00' for twelve hours, in quotes in a file"
        yield _error("max_time", text, rule)
    if (algorithm := trainer.get("gradient_clip_algorithm")) not in (None, "norm", "value"):
        yield _error("gradient_clip_algorithm", algorithm, "must be norm or value")


def size_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for each whole number that no count, size or index of a run can have."""
    for key, value in flatten(settings):
        if isinstance(value, int) and abs(value) > LARGEST and key != "seed":
            shown = str(value) if abs(value) < 10**DIGITS else f"(a number of more than {DIGITS} digits)"
            yield InputError(f"{key}={shown} is out of range: whole numbers are at most {LARGEST}", key=key)


def _error(name: str, value: Any, rule: str) -> InputError:
    return InputError(f"trainer.{name}={value} {rule}", key=f"trainer.{name}")
