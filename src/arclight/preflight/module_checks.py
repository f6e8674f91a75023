"""What a LightningModule must have to be trained."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from arclight.config.groups import module_group
from arclight.config.instantiate import find_target
from arclight.errors import InputError

REQUIRED = {"training_step": "returns the loss of a batch", "configure_optimizers": "returns an optimizer"}


def module_class_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields what the class of a config's LightningModule lacks; nothing for a function that returns one."""
    group = module_group(settings)
    try:
        found = find_target(str(settings[group].get("_target_", "")), group)
    except InputError:  # reported with all other targets
        return
    if inspect.isclass(found) and issubclass(found, LightningModule):
        yield from missing_methods(found, group)
    elif inspect.isclass(found) and issubclass(found, nn.Module):
        yield InputError(
            f"{group}: {found.__name__} is a net, not a LightningModule; choose one with module=..., or name one in "
            f"{group}._target_",
            key=f"{group}._target_",
        )


def missing_methods(module: LightningModule | type[LightningModule], group: str) -> Iterator[InputError]:
    """Yields an error for each method without which a module or a class of modules cannot be trained."""
    name = module.__name__ if isinstance(module, type) else type(module).__name__
    for method, result in REQUIRED.items():
        if not is_overridden(method, module, parent=LightningModule):
            yield InputError(f"{group}: {name} has no {method}; define one that {result}", key=f"{group}._target_")
