"""Parameters by patterns."""

from __future__ import annotations

import pytest
from torch import nn

from arclight.errors import InputError
from arclight.optim.freezing import freeze_parameters


def net() -> nn.Module:
    return nn.ModuleDict({"stem": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))})


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        ((), ["stem.weight", "stem.bias", "head.0.weight", "head.0.bias", "head.1.weight"]),
        (("stem",), ["head.0.weight", "head.0.bias", "head.1.weight"]),
        (("head.*.weight", "*.bias"), ["stem.weight"]),
    ],
)
def test_matching_parameters_are_not_trained(patterns: tuple[str, ...], trained: list[str]) -> None:
    frozen = net()
    freeze_parameters(frozen, patterns)
    assert [name for name, parameter in frozen.named_parameters() if parameter.requires_grad] == trained


def test_a_pattern_that_matches_nothing_or_all_is_an_error() -> None:
    with pytest.raises(InputError, match="module.freeze: 'sten' matches no parameter of ModuleDict. Did you mean 'stem'"):
        freeze_parameters(net(), ["stem", "sten"])
    with pytest.raises(InputError, match="module.freeze matches all parameters of ModuleDict: nothing would be trained"):
        freeze_parameters(net(), ["*"])
    freeze_parameters(nn.Identity(), ["encoder.*"])  # stands in for a net
