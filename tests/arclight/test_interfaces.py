"""What a batch offers, and the defaults for batches that offer nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from arclight import interfaces


class Frames(NamedTuple):
    """Clips of different lengths, laid end to end."""

    video: Tensor
    num_samples: int

    @property
    def unit_counts(self) -> dict[str, int]:
        return {"frames": len(self.video)}


@pytest.mark.parametrize(
    ("batch", "number"),
    [
        (torch.zeros(3, 2), 3),
        ((torch.zeros(4, 2), torch.zeros(4)), 4),
        ({"ids": [torch.zeros(5)], "mask": torch.zeros(5)}, 5),
        (["text", torch.tensor(1.0)], 1),
        ({}, 1),
        (Frames(torch.zeros(12, 2), 2), 2),
    ],
)
def test_samples_of_any_batch(batch: Any, number: int) -> None:
    assert interfaces.num_samples(batch) == number
    assert interfaces.work_units(batch) == {"samples": number}
    assert interfaces.flops_per_unit(batch, lambda batch: 12.0) == {"samples": 12.0 / number}


def test_other_units_are_optional() -> None:
    assert interfaces.unit_counts(Frames(torch.zeros(12, 2), 2)) == {"frames": 12}
    assert interfaces.unit_counts(torch.zeros(3)) == {}
    assert interfaces.num_positions(torch.zeros(3)) == 0


def test_inputs_of_any_batch() -> None:
    images, labels = torch.zeros(2, 3), torch.zeros(2)
    for batch in (images, (images, labels), [images, labels]):
        (inputs,) = interfaces.example_inputs(batch)
        assert inputs is images


def test_the_monitor_is_that_of_the_config_else_of_the_module_else_none() -> None:
    class WithMonitor:
        monitor = interfaces.Monitor("val/accuracy", "max")

    class WithName:
        monitor = "val_loss"

    assert interfaces.monitor_of(object()) is None
    assert interfaces.monitor_of(WithMonitor) == interfaces.Monitor("val/accuracy", "max")
    assert interfaces.monitor_of(WithName) == interfaces.Monitor("val_loss", "min")
    assert interfaces.monitor_of(WithMonitor, {"monitor": "val/f1"}) == interfaces.Monitor("val/f1", "max")
    assert interfaces.monitor_of(WithMonitor, {"monitor_mode": "min"}) == interfaces.Monitor("val/accuracy", "min")
    assert interfaces.monitor_of(WithMonitor, {"monitor": "none"}) is None


def test_metrics_of_an_evaluation_have_one_form_in_the_results() -> None:
    names = ("val/acc", "val_acc", "acc", "val_mse/dataloader_idx_0", "train/loss")
    standard = ["val/acc", "val/acc", "val/acc", "val/mse/dataloader_idx_0", "train/loss"]
    assert [interfaces.standard_name("val", name) for name in names] == standard


def test_the_index_of_a_batch_is_passed_if_training_step_takes_it() -> None:
    class WithIndex:
        def training_step(self, batch: Any, batch_idx: int) -> dict[str, float]:
            return {"loss": 2.0}

    class Without:
        def training_step(self, batch: Any) -> float:
            return 2.0

    for module, args in ((WithIndex(), ("batch", 0)), (Without(), ("batch",))):
        assert interfaces.training_step_args(module, "batch") == args
        assert interfaces.loss_in(module.training_step(*args)) == 2.0


def test_the_direction_of_a_metric() -> None:
    results = {"monitor": "val/gap", "monitor_mode": "min"}
    assert [interfaces.direction(name, results) for name in ("test/gap", "val/gap", "test/f1", "test/loss", "test/x")] == [
        *("min", "min", "max", "min", None),
    ]
    older = {"monitor": "val/loss"}  # a run without the mode in its results
    assert [interfaces.direction(name, older) for name in ("test/loss", "test/gap")] == ["min", None]
    assert interfaces.direction("test/gap", {"monitor": None}) is None


def test_keys_of_one_class() -> None:
    keys = ("test/f1/cat", "val/f1/cat", "test/f1", "val/mse/dataloader_idx_0")
    assert [interfaces.is_of_one_class(key) for key in keys] == [True, True, False, False]
