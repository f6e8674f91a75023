"""Which parameter learns how fast and decays how much."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from arclight.errors import InputError
from arclight.optim.param_groups import can_fuse, configure, lr_factor, parameter_groups
from arclight.optim.schedulers import warmup_linear


class Layered(nn.Module):
    """An embedding, two layers, a head; numbered as the tagger does."""

    num_layers = 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3)])
        self.head = nn.Linear(3, 2)

    def depth(self, name: str) -> int:
        return {"embedding": 0, "layers.0": 1, "layers.1": 2}.get(name.rpartition(".")[0], 3)


def test_norms_and_biases_do_not_decay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    groups = {group["weight_decay"]: group["params"] for group in parameter_groups(net, lr=0.1, weight_decay=0.5)}
    assert {id(p) for p in groups[0.5]} == {id(net[0].weight), id(net[2].weight)}
    assert {id(p) for p in groups[0.0]} == {id(net[0].bias), id(net[1].weight), id(net[1].bias), id(net[2].bias)}


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    (group,) = parameter_groups(net, lr=0.1, weight_decay=0.5)
    assert len(group["params"]) == 1


def test_each_layer_learns_slower_than_the_one_above() -> None:
    net = Layered()
    rates = {
        id(p): group["lr"]
        for group in parameter_groups(net, lr=1.0, weight_decay=0.0, layer_decay=0.5)
        for p in group["params"]
    }
    parameters = [net.head.weight, net.layers[1].bias, net.layers[0].weight, net.embedding.weight]
    assert [rates[id(parameter)] for parameter in parameters] == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("layer_decay", [0.0, -1.0, 1.5])
def test_a_layer_decay_out_of_range_is_an_error(layer_decay: float) -> None:
    with pytest.raises(InputError, match=f"module.layer_decay={layer_decay} must be above 0 and at most 1"):
        parameter_groups(Layered(), lr=1.0, weight_decay=0.0, layer_decay=layer_decay)


def test_layer_decay_needs_numbered_layers() -> None:
    with pytest.raises(InputError, match="needs a net with numbered layers; Linear has none"):
        parameter_groups(nn.Linear(2, 2), lr=1.0, weight_decay=0.0, layer_decay=0.9)


def module(*, precision: str = "32-true") -> Any:
    trainer = SimpleNamespace(
        precision=precision,
        datamodule=SimpleNamespace(steps_per_epoch=10),
        overfit_batches=0.0,
        limit_train_batches=1.0,
        accumulate_grad_batches=1,
        max_epochs=2,
        max_steps=-1,
    )
    return SimpleNamespace(trainer=trainer)


def test_every_step_has_the_rate_of_the_scheduler() -> None:
    net = nn.Linear(2, 2)
    made = configure(
        module(), net, functools.partial(torch.optim.SGD, lr=2.0), functools.partial(warmup_linear, warmup_fraction=0.1)
    )
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([2.0 * warmup_linear(step, 20, warmup_fraction=0.1) for step in range(20)])
    assert made["lr_scheduler"]["interval"] == "step"


def test_the_update_is_one_kernel_except_under_a_scaler() -> None:
    make = functools.partial(torch.optim.AdamW, lr=0.1)
    constant = lambda step, total: 1.0  # noqa: E731
    assert configure(module(), nn.Linear(2, 2), make, constant)["optimizer"].param_groups[0]["fused"] is True
    assert not configure(module(precision="16-mixed"), nn.Linear(2, 2), make, constant)["optimizer"].param_groups[0]["fused"]
    own = functools.partial(torch.optim.AdamW, lr=0.1, fused=False)
    assert configure(module(), nn.Linear(2, 2), own, constant)["optimizer"].param_groups[0]["fused"] is False


@pytest.mark.parametrize(("key", "value"), [("lr", -1.0), ("lr", float("nan")), ("weight_decay", float("inf"))])
def test_a_negative_or_infinite_rate_is_an_error(key: str, value: float) -> None:
    make = functools.partial(torch.optim.AdamW, **{key: value})
    with pytest.raises(InputError, match=f"optimizer.{key}={value} must be a finite number of 0 or more"):
        configure(module(), nn.Linear(2, 2), make, lambda step, total: 1.0)


@pytest.mark.parametrize(
    ("rule", "batch_size", "lr_batch_size", "factor"),
    [
        *[("none", 256, 64, 1.0), ("none", 256, None, 1.0), ("linear", 256, 64, 4.0), ("linear", 64, 64, 1.0)],
        *[("linear", 32, 64, 0.5), ("sqrt", 256, 64, 2.0), ("sqrt", 16, 64, 0.5)],
    ],
)
def test_the_rate_follows_the_batch(rule: Any, batch_size: int, lr_batch_size: int | None, factor: float) -> None:
    assert lr_factor(rule, batch_size, lr_batch_size) == factor


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_a_rule_needs_the_batch_size_that_it_starts_from(rule: Any) -> None:
    with pytest.raises(InputError, match=f"module.lr_rule={rule} needs module.lr_batch_size: the global batch size"):
        lr_factor(rule, 64, None)
    with pytest.raises(InputError, match="module.lr_batch_size=0 must be 1 or more"):
        lr_factor(rule, 64, 0)


def test_the_factor_applies_to_every_group() -> None:
    make = functools.partial(torch.optim.AdamW, lr=0.1)
    made = configure(module(), Layered(), make, lambda step, total: 1.0, layer_decay=0.5, factor=4.0)
    rates = sorted({group["lr"] for group in made["optimizer"].param_groups})
    assert rates == pytest.approx([0.05, 0.1, 0.2, 0.4])


def test_short_weights_are_not_updated_by_the_fused_sgd() -> None:
    """Its momentum would hold whatever was in memory, and two equal runs would differ."""
    sgd, adam = (functools.partial(kind, lr=0.1) for kind in (torch.optim.SGD, torch.optim.Adam))
    net = nn.Linear(2, 2)
    assert [can_fuse(make, net) for make in (sgd, adam, functools.partial(torch.optim.Adadelta))] == [True, True, False]
    assert [can_fuse(make, net.to(torch.bfloat16)) for make in (sgd, adam)] == [False, True]
