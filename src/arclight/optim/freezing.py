"""Parameters by patterns of their names, and freezing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from arclight.errors import InputError, nearest


def freeze_parameters(net: nn.Module, patterns: Sequence[str], key: str = "module.freeze") -> None:
    """Excludes the net's parameters that `patterns` name from training.

    Raises:
        InputError: when a pattern matches no parameter, or together they match all.
    """
    found = matching_parameters(net, patterns, key)
    for parameter in found.values():
        parameter.requires_grad = False
    check_some_are_trained(net, found, key)


def check_some_are_trained(net: nn.Module, frozen: Mapping[str, nn.Parameter], key: str) -> None:
    """Raises InputError when no parameter is left to train besides the frozen ones."""
    if frozen and not any(parameter.requires_grad for name, parameter in net.named_parameters() if name not in frozen):
        raise InputError(f"{key} matches all parameters of {type(net).__name__}: nothing would be trained", key=key)


def matching_parameters(net: nn.Module, patterns: Sequence[str], key: str) -> dict[str, nn.Parameter]:
    """Returns the parameters whose names match a pattern, `*` and `?` as in file names; a module's name means all of its.

    A net without parameters stands in for another one, and has no match for any pattern.

    Args:
        net: any module.
        patterns: such as `encoder.layer.0.*` or `stem`.
        key: of the config, for the error.

    Raises:
        InputError: when a pattern matches no parameter.
    """
    parameters = dict(net.named_parameters())
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matching = {
            name: one for name, one in parameters.items() if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
        }
        if parameters and not matching:
            modules = {name.rpartition(".")[0] for name in parameters} - {""}
            message = (
                f"{key}: '{pattern}' matches no parameter of {type(net).__name__}. {nearest(pattern, modules or parameters)}"
            )
            raise InputError(message, key=key)
        found |= matching
    return found
