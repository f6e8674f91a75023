"""Factors at exact steps, computed by hand, and schedulers of torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from arclight.errors import InputError
from arclight.interfaces import Monitor
from arclight.optim import schedulers
from arclight.optim.schedulers import (
    build_scheduler,
    constant,
    cosine,
    count_steps,
    one_cycle,
    scheduler_config,
    steps,
    try_scheduler,
    warmup_linear,
)


def test_constant() -> None:
    assert [constant(step, 10) for step in (0, 9)] == [1.0, 1.0]
    assert [constant(step, 10, warmup_fraction=0.4) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]


def test_warmup_linear() -> None:
    # 20 steps, 2 of them up: the 18 others go down from 1 to 1/18
    factors = [warmup_linear(step, 20) for step in (0, 1, 2, 11, 19, 20)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.5, 1 / 18, 0.0])


def test_cosine() -> None:
    assert [cosine(step, 8) for step in (0, 4, 8)] == pytest.approx([1.0, 0.5, 0.0])
    assert [cosine(step, 8, floor=0.2) for step in (0, 4, 8)] == pytest.approx([1.0, 0.6, 0.2])
    assert cosine(0, 8, warmup_fraction=0.5) == 0.25


def test_one_cycle() -> None:
    assert [one_cycle(step, 10) for step in (0, 3, 10)] == pytest.approx([0.04, 1.0, 0.0001])
    assert one_cycle(1, 10, warmup_fraction=0.2) == pytest.approx((0.04 + 1) / 2)


def test_steps() -> None:
    assert [steps(step, 8, milestones=[0.5, 0.75]) for step in (0, 3, 4, 5, 6, 7)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", ["constant", "warmup_linear", "cosine", "one_cycle"])
def test_a_fraction_outside_0_to_1_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match="scheduler.warmup_fraction=1.5 must be between 0 and 1"):
        getattr(schedulers, name)(0, 10, warmup_fraction=1.5)


def test_a_milestone_outside_0_to_1_is_an_error() -> None:
    with pytest.raises(InputError, match="scheduler.milestones contains 30"):
        steps(0, 10, milestones=[0.5, 30])


def trainer(**settings: Any) -> Any:
    defaults = {
        "overfit_batches": 0.0,
        "limit_train_batches": 1.0,
        "accumulate_grad_batches": 1,
        "max_epochs": 3,
        "max_steps": -1,
    }
    return SimpleNamespace(**{**defaults, **settings})


@pytest.mark.parametrize(
    ("settings", "expected", "epochs"),
    [
        ({}, 30, 3),
        ({"max_steps": 7}, 7, 1),
        ({"max_epochs": -1, "max_steps": 7}, 7, 1),
        ({"limit_train_batches": 0.5}, 15, 3),
        ({"limit_train_batches": 4}, 12, 3),
        ({"limit_train_batches": 40}, 30, 3),
        ({"overfit_batches": 2}, 6, 3),
        ({"accumulate_grad_batches": 4}, 30, 3),
        ({"accumulate_grad_batches": 4, "limit_train_batches": 6}, 6, 3),
    ],
)
def test_steps_of_a_fit(settings: dict[str, Any], expected: int, epochs: int) -> None:
    assert count_steps(trainer(**settings), 10) == (expected, epochs)


def test_a_fit_without_end_is_an_error() -> None:
    with pytest.raises(InputError, match=r"set trainer.max_epochs or trainer.max_steps"):
        count_steps(trainer(max_epochs=-1), 10)


TORCH = "torch.optim.lr_scheduler."


def torch_scheduler(name: str, **settings: Any) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """Returns an optimizer with learning rate 1 and the entry of a scheduler of torch for 100 steps in 10 epochs."""
    scheduler = build_scheduler({"_target_": TORCH + name, "_partial_": True, **settings})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    monitor = Monitor("val/accuracy", "max")
    return optimizer, scheduler_config(scheduler, optimizer, total_steps=100, total_epochs=10, monitor=monitor)


def rates(optimizer: torch.optim.Optimizer, scheduler: Any, num_steps: int) -> list[float]:
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_scheduler_of_torch_steps_with_the_optimizer_or_the_epoch() -> None:
    optimizer, entry = torch_scheduler("StepLR", step_size=2)
    assert entry["interval"] == "step"
    assert rates(optimizer, entry["scheduler"], 4) == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert torch_scheduler("StepLR", step_size=2, interval="epoch")[1]["interval"] == "epoch"


@pytest.mark.parametrize(("interval", "total"), [("step", 100), ("epoch", 10)])
def test_the_engine_supplies_the_length_of_the_fit(interval: str, total: int) -> None:
    assert torch_scheduler("CosineAnnealingLR", interval=interval)[1]["scheduler"].T_max == total
    assert torch_scheduler("CosineAnnealingLR", interval=interval, T_max=7)[1]["scheduler"].T_max == 7
    optimizer, entry = torch_scheduler("OneCycleLR", interval=interval, max_lr=1.0)
    assert entry["scheduler"].total_steps == total
    assert rates(optimizer, entry["scheduler"], total)[-1] < 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_target_": TORCH + "StepLR"}, "step_size"),
        ({"_target_": TORCH + "ReduceLROnPlateau", "interval": "step"}, "scheduler.interval=step must be epoch"),
        ({"_target_": TORCH + "StepLR", "step_size": 3, "interval": "batch"}, "scheduler.interval=batch must be step or epoch"),
        ({"_target_": "arclight.optim.schedulers.constant", "interval": "epoch"}, "scheduler.interval=epoch applies to"),
    ],
)
def test_a_wrong_scheduler_is_an_error_before_training(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, TypeError), match=message):
        try_scheduler({**settings, "_partial_": True})


class Scripted(LightningModule):
    """Logs a validation accuracy that does not improve after the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rates: list[float] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        return self.weight * 1.0

    def on_train_epoch_start(self) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Any) -> None:
        self.log("val/accuracy", 0.5)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        config = {"_target_": TORCH + "ReduceLROnPlateau", "_partial_": True, "patience": 1}
        monitor = Monitor("val/accuracy", "max")
        entry = scheduler_config(build_scheduler(config), optimizer, total_steps=8, total_epochs=4, monitor=monitor)
        assert (entry["interval"], entry["scheduler"].mode) == ("epoch", "max")
        return {"optimizer": optimizer, "lr_scheduler": entry}


def test_a_plateau_of_the_monitored_metric_lowers_the_rate(tmp_path: Path) -> None:
    module = Scripted()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer_ = Trainer(accelerator="cpu", max_epochs=5, default_root_dir=tmp_path, num_sanity_val_steps=0, **quiet)  # type: ignore[arg-type]
    trainer_.fit(module, [torch.zeros(1)] * 2, [torch.zeros(1)])
    assert module.rates == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1])
