"""Dropout drops its fraction, scales the rest exactly, and repeats with the seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from arclight.modules.dropout import Dropout, replace_dropout

SHAPE = (500, 801)  # not a multiple of four numbers


@pytest.mark.parametrize("share", [1e-3, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fraction_is_dropped_and_the_rest_is_scaled(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = Dropout(share)(torch.ones(SHAPE, dtype=dtype))
    assert dropped.shape == SHAPE
    assert dropped.dtype == dtype
    num = dropped.numel()
    bound = 4 * (share * (1 - share) / num) ** 0.5  # four standard deviations
    assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=bound)
    (kept,) = dropped.unique()[1:].tolist()
    assert kept == pytest.approx(1 / (1 - share), rel=0.004 if dtype == torch.bfloat16 else 1e-4)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zeros = (Dropout(0.5)(torch.ones(400_000)) == 0).double()
    for distance in (1, 2, 3, 4, 8):
        both = (zeros[distance:] * zeros[:-distance]).mean().item()
        assert both == pytest.approx(0.25, abs=0.003)


def test_dropped_values_have_no_gradient() -> None:
    torch.manual_seed(0)
    values = torch.rand(SHAPE, requires_grad=True)
    out = Dropout(0.25)(values)
    out.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad * values, out)


def test_a_seed_gives_the_same_mask_again() -> None:
    values, dropout = torch.ones(SHAPE), Dropout(0.3)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(dropout(values))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(1e-6), Dropout(0.5).eval()])
def test_nothing_is_dropped_in_evaluation_or_with_p_0(dropout: Dropout) -> None:
    values = torch.rand(100)
    torch.testing.assert_close(dropout(values), values, rtol=1e-5, atol=0)


def test_all_can_be_dropped() -> None:
    assert not Dropout(1.0)(torch.ones(9)).any()


def test_it_replaces_torchs() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.4), nn.Dropout1d(0.3)))
    names = list(net.state_dict())
    replace_dropout(net)
    kinds = [(type(module), module.p) for module in net.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    assert kinds == [(Dropout, 0.2), (Dropout, 0.4), (nn.Dropout1d, 0.3)]
    assert list(net.state_dict()) == names
