"""Muon: orthogonalized updates, equal to those of one filter bank at a time, exact resume, settings out of range."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, distribute_tensor

from arclight.data.samplers import generator
from arclight.errors import InputError
from arclight.optim.muon import Muon, orthogonalize
from arclight.optim.param_groups import parameter_groups


def net() -> nn.Sequential:
    """Two filter banks of one shape, one of another, a norm, a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 6, 3, bias=False), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1), nn.Flatten(), nn.Linear(2, 3)
    )


def backward(model: nn.Module, seed: int) -> None:
    model.zero_grad()
    model(torch.randn(4, 6, 5, 5, generator=generator(seed))).square().sum().backward()


def rounds_of_one(matrix: Tensor, ns_steps: int) -> Tensor:
    """Returns the polynomial applied to the singular values themselves, without iterating matrices."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(ns_steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return u @ torch.diag(values) @ v


@pytest.mark.parametrize("shape", [(3, 8, 30), (2, 30, 8), (1, 5, 5)])
def test_all_singular_values_of_an_update_are_near_1(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=generator(0)), 5))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_an_update_does_not_depend_on_the_scale_of_the_gradient(scale: float) -> None:
    matrices = torch.randn(2, 4, 9, generator=generator(1))
    torch.testing.assert_close(orthogonalize(matrices * scale, 3), orthogonalize(matrices, 3), rtol=1e-3, atol=1e-3)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 4), 5), torch.zeros(1, 3, 4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_banks_together_equal_one_at_a_time_and_the_rest_equals_sgd(layout: torch.memory_format) -> None:
    model = net().to(memory_format=layout)  # type: ignore[call-overload]
    reference = copy.deepcopy(model)
    optimizer = Muon(parameter_groups(model, lr=0.1, weight_decay=0.0), lr=0.1, momentum=0.6, sgd_lr=0.02, sgd_weight_decay=0.3)
    rest = [parameter for parameter in reference.parameters() if parameter.ndim <= 2]
    groups = [{"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}, {"params": [p for p in rest if p.ndim == 2]}]
    sgd = torch.optim.SGD(groups, lr=0.02, momentum=0.85, nesterov=True, weight_decay=0.3)
    sums: dict[int, Tensor] = {}
    for seed in range(3):
        backward(model, seed)
        backward(reference, seed)
        optimizer.step()
        sgd.step()
        for number, bank in enumerate(reference.parameters()):
            if bank.ndim == 4 and bank.grad is not None:
                sums[number] = 0.6 * sums.get(number, torch.zeros_like(bank)) + bank.grad
                move = rounds_of_one((bank.grad + 0.6 * sums[number]).flatten(1), 3).view(bank.shape)
                bank.data = bank.data * len(bank) ** 0.5 / bank.data.norm() - 0.1 * move
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_weight_decay_shrinks_filters() -> None:
    model = net()
    before = model[0].weight.detach().clone()
    optimizer = Muon(model.parameters(), lr=0.1, weight_decay=0.5, normalize=False, momentum=0.0)
    model[0].weight.grad = torch.zeros_like(before)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, before * 0.95)


def test_groups_keep_the_ratio_of_their_rates_and_filters_come_last() -> None:
    model = net()
    optimizer = Muon(parameter_groups(model, lr=0.4, weight_decay=0.0), lr=0.2, sgd_lr=0.1, sgd_weight_decay=0.7)
    assert [(group["lr"], group["weight_decay"], group["orthogonal"]) for group in optimizer.param_groups] == [
        (0.2, 0.0, False),  # norms and biases
        (0.2, 0.7, False),  # the linear layer
        (0.4, 0.0, True),
    ]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_resuming_is_exact() -> None:
    whole, stopped = net(), net()
    optimizers = [Muon(model.parameters(), lr=0.1) for model in (whole, stopped)]
    for model, optimizer in zip((whole, stopped), optimizers, strict=True):
        for seed in range(2):
            backward(model, seed)
            optimizer.step()
    resumed = net()
    resumed.load_state_dict(stopped.state_dict())
    restored = Muon(resumed.parameters(), lr=0.1)
    restored.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for model, optimizer in ((whole, optimizers[0]), (resumed, restored)):
        backward(model, 2)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_its_state_is_plain() -> None:
    model = net()
    optimizer = Muon(model.parameters())
    backward(model, 0)
    optimizer.step()
    for states in optimizer.state_dict()["state"].values():
        assert list(states) == ["momentum_buffer"]
        assert type(states["momentum_buffer"]) is Tensor


def test_a_closure_is_called_with_gradients() -> None:
    model = nn.Linear(2, 2)
    optimizer = Muon(model.parameters())

    def closure() -> Tensor:
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert model.weight.grad is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, r"optimizer\.lr=-1\.0 must be a finite number of 0 or more"),
        ({"weight_decay": float("inf")}, r"optimizer\.weight_decay=inf must be a finite number"),
        ({"sgd_lr": float("nan")}, r"optimizer\.sgd_lr=nan must be a finite number"),
        ({"sgd_weight_decay": -0.1}, r"optimizer\.sgd_weight_decay=-0\.1 must be a finite number"),
        ({"momentum": 1.0}, r"optimizer\.momentum=1\.0 must be 0 or more and below 1"),
        ({"sgd_momentum": -0.5}, r"optimizer\.sgd_momentum=-0\.5 must be 0 or more and below 1"),
        ({"ns_steps": 0}, r"optimizer\.ns_steps=0 must be 1 or more"),
        ({"weight_decay": 0.1}, r"optimizer\.weight_decay=0\.1 has no effect with optimizer\.normalize=true"),
    ],
)
def test_a_setting_out_of_range_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Muon(net().parameters(), **settings)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_sharded_weights_are_refused() -> None:
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    sharded = nn.Parameter(distribute_tensor(torch.ones(2, 2), mesh, [Replicate()]))
    with pytest.raises(InputError, match="optimizer=muon needs whole filters on every process, and strategy=fsdp shards them"):
        Muon([sharded])
