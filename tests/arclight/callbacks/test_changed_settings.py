"""Which part of a checkpoint a run takes over that is resumed with other settings (`resume_with_changes=true`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, SequentialLR, StepLR

from arclight.callbacks.changed_settings import keep_arguments, kind_of, resumed_optimizer, resumed_scheduler

NET = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
NAMES = ["0.weight", "0.bias", "1.weight", "1.bias"]


def trained(optimizer: Optimizer, steps: int = 3) -> dict[str, Any]:
    """Returns the state of an optimizer after some steps."""
    scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
    for _ in range(steps):
        optimizer.zero_grad()
        NET(torch.ones(4, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict()


def test_the_settings_are_those_of_now_and_the_moments_those_of_the_checkpoint() -> None:
    saved = trained(AdamW(NET.parameters(), lr=0.1, weight_decay=0.0))
    now = AdamW(NET.parameters(), lr=0.4, weight_decay=0.3, betas=(0.5, 0.6))
    state = resumed_optimizer(now, saved, {"kind": kind_of(now), "parameters": NAMES}, NAMES)
    (group,) = state["param_groups"]
    assert (group["weight_decay"], group["betas"]) == (0.3, (0.5, 0.6))
    assert group["lr"] == pytest.approx(0.4 / 8)  # where the scheduler was
    assert all(torch.equal(state["state"][place]["exp_avg"], saved["state"][place]["exp_avg"]) for place in range(4))
    now.load_state_dict(state)


def test_an_equal_rate_stays_as_it_is_bit_for_bit() -> None:
    saved = trained(AdamW(NET.parameters(), lr=0.1))
    saved["param_groups"][0]["lr"] = 0.1 / 3
    now = AdamW(NET.parameters(), lr=0.1)
    assert resumed_optimizer(now, saved, {}, NAMES)["param_groups"][0]["lr"] == 0.1 / 3


def test_moments_follow_their_parameters_into_other_groups() -> None:
    weights, biases = [NET[0].weight, NET[1].weight], [NET[0].bias, NET[1].bias]
    saved = trained(AdamW(NET.parameters(), lr=0.1, weight_decay=0.0))
    now = AdamW([{"params": weights}, {"params": biases, "weight_decay": 0.0}], lr=0.1, weight_decay=0.5)
    names = ["0.weight", "1.weight", "0.bias", "1.bias"]
    state = resumed_optimizer(now, saved, {"kind": kind_of(now), "parameters": NAMES}, names)
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.5, 0.0]
    for place, name in enumerate(names):
        assert torch.equal(state["state"][place]["exp_avg"], saved["state"][NAMES.index(name)]["exp_avg"])


def test_another_optimizer_starts_without_moments(caplog: pytest.LogCaptureFixture) -> None:
    saved = trained(SGD(NET.parameters(), lr=0.1, momentum=0.9))
    now = AdamW(NET.parameters(), lr=0.1)
    state = resumed_optimizer(now, saved, {"kind": "torch.optim.sgd.SGD", "parameters": NAMES}, NAMES)
    assert state["state"] == {}
    assert "torch.optim.adamw.AdamW starts without moments: the checkpoint has those of torch.optim.sgd.SGD" in caplog.text


def test_a_scheduler_keeps_its_place_and_takes_its_settings() -> None:
    optimizer = SGD(NET.parameters(), lr=0.1)
    saved = {**StepLR(optimizer, step_size=5).state_dict(), "last_epoch": 7, "_step_count": 8}
    state = resumed_scheduler(StepLR(optimizer, step_size=9, gamma=0.5).state_dict(), saved, 20)
    assert (state["step_size"], state["gamma"], state["last_epoch"], state["_step_count"]) == (9, 0.5, 7, 8)


def test_another_scheduler_stands_where_training_stands() -> None:
    optimizer = SGD(NET.parameters(), lr=0.1)
    plateau = ReduceLROnPlateau(optimizer, patience=3)
    plateau.step(1.0)
    plateau.step(2.0)
    state = resumed_scheduler(ReduceLROnPlateau(optimizer, patience=9).state_dict(), plateau.state_dict(), 2)
    assert (state["patience"], state["num_bad_epochs"], state["best"], state["last_epoch"]) == (9, 1, 1.0, 2)
    assert resumed_scheduler(CosineAnnealingLR(optimizer, 10).state_dict(), {}, 4)["last_epoch"] == 4


def test_the_parts_of_a_scheduler_keep_their_places() -> None:
    optimizer = SGD(NET.parameters(), lr=0.1)
    parts = [StepLR(optimizer, 2, 0.5), StepLR(optimizer, 3, 0.1)]
    own = SequentialLR(optimizer, parts, milestones=[4]).state_dict()
    saved = {**own, "_schedulers": [{**part, "last_epoch": 6, "gamma": 0.9} for part in own["_schedulers"]]}
    parts_now = resumed_scheduler(own, saved, 6)["_schedulers"]
    assert [(part["last_epoch"], part["gamma"]) for part in parts_now] == [(6, 0.5), (6, 0.1)]


@pytest.mark.parametrize(("patience", "is_stopped"), [(9, False), (2, True)])
def test_a_callback_keeps_what_it_was_constructed_with(patience: int, is_stopped: bool) -> None:
    now = EarlyStopping("val/loss", patience=patience)
    state = {"wait_count": 2, "stopped_epoch": 3, "best_score": torch.tensor(1.0), "patience": 2}
    checkpoint = {"callbacks": {now.state_key: state}, "stopped_early": True}
    keep_arguments([now], checkpoint)
    assert state == {"wait_count": 2, "stopped_epoch": 3, "best_score": torch.tensor(1.0), "patience": patience}
    assert checkpoint["stopped_early"] is is_stopped
