"""Keeps a checkpoint plain: tensors, numbers, text and containers of them, which `torch.load(weights_only=True)` reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from omegaconf import Container, OmegaConf

from arclight.config.redaction import without_secrets
from arclight.errors import InputError

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.Size, torch.dtype, torch.device)
HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # where Lightning puts those of `save_hyperparameters`
TYPES_OF_THESE = ("hparams_type", "datamodule_hparams_type")


def make_plain(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint that holds plain values only.

    Of hyperparameters, nets, partials and other objects are left out, and secrets: the run builds its module from the config.

    Raises:
        InputError: naming the key of another value that is not plain, which a module or callback has put there.
    """
    plain = {key: value for key, value in checkpoint.items() if key not in (*HYPER_PARAMETERS, *TYPES_OF_THESE)}
    for key in HYPER_PARAMETERS:
        if key in checkpoint:
            values: Any = convert(checkpoint[key])
            plain[key] = without_secrets({name: convert(value) for name, value in values.items() if is_plain(convert(value))})
    return {key: checked(value, str(key)) for key, value in plain.items()}


def convert(value: Any) -> Any:
    """Returns a value with plain ones in the place of those that have an obvious plain form: paths, numbers of numpy."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    if type(value) not in PLAIN:  # such as an enumeration of numbers or text
        for base in (int, float, str):
            if isinstance(value, base):
                return base(value)
    return OmegaConf.to_container(value) if isinstance(value, Container) else value


def is_plain(value: Any) -> bool:
    """Returns whether a value, with all that it contains, is plain."""
    try:
        checked(value, "")
    except InputError:
        return False
    return True


def checked(value: Any, path: str) -> Any:
    """Returns the value, converted where needed; raises InputError with the key of what cannot be stored."""
    value = convert(value)
    if type(value) in PLAIN or isinstance(value, torch.Tensor):
        return value
    if type(value) in (dict, OrderedDict):
        return type(value)((checked(key, path), checked(inner, f"{path}.{key}")) for key, inner in value.items())
    if isinstance(value, Mapping):
        return {checked(key, path): checked(inner, f"{path}.{key}") for key, inner in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(checked(inner, f"{path}.{place}") for place, inner in enumerate(value))
    raise InputError(
        f"the checkpoint would hold a {type(value).__module__}.{type(value).__qualname__} at {path}, which only pickle reads; "
        "store plain values, such as its state_dict(), in on_save_checkpoint or state_dict"
    )
