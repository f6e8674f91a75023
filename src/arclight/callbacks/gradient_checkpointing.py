"""GradientCheckpointing: activations are computed again in the backward pass, so that training needs less memory."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from arclight.errors import InputError, first_line

# of transformers, under its new and its old name, and of timm
METHODS = ("activation_checkpointing_enable", "gradient_checkpointing_enable", "set_grad_checkpointing")


class GradientCheckpointing(Callback):
    """Turns on the checkpointing that the nets in a LightningModule offer, as those of transformers and timm do.

    Losses and gradients stay the same; a step takes about a third longer.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            enable_checkpointing(pl_module)


def enable_checkpointing(module: nn.Module) -> None:
    """Turns on gradient checkpointing in a module, or in all of the outermost nets in it that offer it.

    Raises:
        InputError: when none offers it, or one does not support it after all.
    """
    offers = list(offered(module))
    if not offers:
        raise InputError(
            f"callbacks.gradient_checkpointing: no net in {type(module).__name__} has a method {' or '.join(METHODS)}, as "
            "those of transformers and timm do; set data.max_batch_per_device to save memory",
            key="callbacks.gradient_checkpointing",
        )
    for net, name in offers:
        try:
            getattr(net, name)()
        except (AssertionError, NotImplementedError, ValueError) as error:
            raise InputError(
                f"callbacks.gradient_checkpointing: {type(net).__name__} does not support it ({first_line(error)}); set "
                "data.max_batch_per_device to save memory",
                key="callbacks.gradient_checkpointing",
            ) from error


def offered(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yields the outermost modules that offer checkpointing, with the name of the method."""
    name = next((name for name in METHODS if callable(getattr(module, name, None))), None)
    if name is not None:
        yield module, name
        return
    for child in module.children():
        yield from offered(child)
