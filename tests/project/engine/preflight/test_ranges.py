"""Settings of the trainer that are out of their range."""

from __future__ import annotations

from typing import Any

import pytest

from arclight.preflight.ranges import trainer_errors


@pytest.mark.parametrize(
    ("trainer", "starts"),
    [
        ({"max_epochs": 3}, []),
        ({"max_epochs": -1, "max_steps": 5}, []),
        ({"max_epochs": 3, "limit_val_batches": 0.5, "val_check_interval": 2, "max_time": "00:01:00:00"}, []),
        ({"max_epochs": -2}, ["trainer.max_epochs=-2 must be -1 or more"]),
        ({"max_epochs": -1}, ["trainer.max_epochs=-1: a scheduler needs to know the end; give a number of epochs, or"]),
        ({}, ["trainer.max_epochs=None: a scheduler needs to know the end"]),
        ({"fast_dev_run": True}, []),
        (
            {"max_epochs": 1, "limit_train_batches": 1.5},
            ["trainer.limit_train_batches=1.5 must be a whole number of 0 or more, or"],
        ),
        ({"max_epochs": 1, "max_time": "1h"}, ["trainer.max_time=1h must have the form DD:HH:MM:SS"]),
        ({"max_epochs": 1, "gradient_clip_algorithm": "l2"}, ["trainer.gradient_clip_algorithm=l2 must be norm or value"]),
    ],
)
def test_the_trainer(trainer: dict[str, Any], starts: list[str]) -> None:
    found = [str(error) for error in trainer_errors(trainer)]
    assert len(found) == len(starts)
    assert all(message.startswith(start) for message, start in zip(found, starts, strict=True))
