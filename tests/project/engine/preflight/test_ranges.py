"""Settings of the trainer and of encoders that are out of their range."""

from __future__ import annotations

from typing import Any

import pytest

from arclight.preflight.ranges import TRAINER, Range, out_of_range, trainer_errors


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ({"max_epochs": 3}, []),
        ({"max_epochs": -1, "max_steps": 5}, []),
        ({"max_epochs": 3, "limit_val_batches": 0.5, "val_check_interval": 2, "max_time": "00:01:00:00"}, []),
        ({"max_epochs": -2}, ["trainer.max_epochs=-2 must be -1 or more"]),
        ({"max_epochs": -1}, ["trainer.max_epochs=-1: a schedule needs to know the end; give a number of epochs, or"]),
        ({}, ["trainer.max_epochs=None: a schedule needs to know the end"]),
        ({"fast_dev_run": True}, []),
        (
            {"max_epochs": 1, "limit_train_batches": 1.5},
            ["trainer.limit_train_batches=1.5 must be a whole number of 0 or more, or"],
        ),
        ({"max_epochs": 1, "max_time": "1h"}, ["trainer.max_time=1h must have the form DD:HH:MM:SS"]),
        ({"max_epochs": 1, "gradient_clip_algorithm": "l2"}, ["trainer.gradient_clip_algorithm=l2 must be norm or value"]),
    ],
)
def test_the_trainer(trainer: dict[str, Any], told: list[str]) -> None:
    found = list(trainer_errors(trainer))
    assert len(found) == len(told)
    assert all(message.startswith(start) for message, start in zip(found, told, strict=True))


def test_a_range_of_two_ends() -> None:
    assert list(out_of_range({"dropout": 1.5}, {"dropout": Range(0, 1)}, "model")) == ["model.dropout=1.5 must be from 0 to 1"]
    assert list(out_of_range({"dropout": True, "max_epochs": "x"}, TRAINER, "model")) == []  # types are told elsewhere
