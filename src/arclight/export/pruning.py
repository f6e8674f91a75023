"""Removes weights or channels of a trained net, and trains what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import prune

from arclight.checkpoint.contents import Restored
from arclight.console.terminal import silence_lightning
from arclight.errors import InputError
from arclight.export.onnx_file import import_extra, quiet_exporter, write_onnx
from arclight.export.program import Program
from arclight.inference.predictor import NO_OUTPUT
from arclight.runs.run_directory import HARMLESS

ROUND_TO = 8  # channels that are left are a multiple of it, as kernels are fast with


class KeepWeights(Callback):
    """Loads the weights again after `setup`, which may overwrite layers that are computed from the data."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.state = {name: value.clone() for name, value in module.state_dict().items()}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.load_state_dict(self.state)


def fine_tune(restored: Restored, data: Any, epochs: int) -> None:
    """Trains the module of a run for so many epochs on the CPU, with the run's optimizer and scheduler from their start."""
    if not epochs:
        return
    module, settings = restored.module, restored.settings
    torch.manual_seed(settings["seed"])
    module.train()
    with silence_lightning(HARMLESS):
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            limit_val_batches=0,
            gradient_clip_val=settings.get("trainer", {}).get("gradient_clip_val"),
            callbacks=[KeepWeights(module)],
            **NO_OUTPUT,
        )
        trainer.fit(module, datamodule=data)
    module.eval()


def prune_weights(restored: Restored, program: Program, data: Any, path: Path, amount: float, epochs: int) -> None:
    """Sets the smallest weights of all trained layers to 0, and keeps them there while the others are trained."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [
        (layer, "weight") for layer in restored.module.modules() if isinstance(layer, kinds) and layer.weight.requires_grad
    ]
    if not layers:
        raise InputError("--method prune: the net has no convolution and no linear layer whose weights are trained")
    for layer, _ in layers:  # `prune` flattens them, which the channels-last format does not allow
        layer.weight.data = layer.weight.data.contiguous()
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
    fine_tune(restored, data, epochs)
    for layer, name in layers:
        prune.remove(layer, name)
    write_onnx(program, path, {})


def prune_channels(restored: Restored, program: Program, data: Any, path: Path, amount: float, epochs: int) -> None:
    """Removes the channels with the smallest weights, with all that depends on them, and trains what is left.

    Of a transformer, the hidden units of the feed-forward layers are removed.

    Raises:
        InputError: when torch-pruning cannot follow the net.
    """
    with quiet_exporter():
        pruning = import_extra("torch_pruning")
        try:
            pruner = pruning.pruner.MetaPruner(
                program.net,
                tuple(program.examples.values()),
                importance=pruning.importance.MagnitudeImportance(p=2),
                pruning_ratio=amount,
                ignored_layers=kept_layers(program),
                round_to=ROUND_TO,
            )
            before = sum(parameter.numel() for parameter in program.net.parameters())
            pruner.step()
            after = sum(parameter.numel() for parameter in program.net.parameters())
        except Exception as error:  # of any class: it follows the graph of somebody else's net
            name = type(restored.module).__name__
            raise InputError(f"--method prune_structured: torch-pruning cannot follow {name}: {error}") from error
    if after == before:
        raise InputError(f"--amount {amount:g} removes nothing: no layer has enough channels that are trained")
    fine_tune(restored, data, epochs)
    write_onnx(program, path, {})


def kept_layers(program: Program) -> list[nn.Module]:
    """Returns the layers whose outputs keep their size: those of the logits; of a transformer, all that do not widen."""
    modules = list(program.net.modules())
    is_transformer = any(isinstance(module, nn.LayerNorm | nn.Embedding) for module in modules)
    num_outputs = program(tuple(program.examples.values()))[0].shape[-1]
    return [
        module
        for module in modules
        if (isinstance(module, nn.Linear) and module.out_features == num_outputs)
        or (is_transformer and isinstance(module, nn.Linear) and module.out_features <= module.in_features)
        or isinstance(module, nn.LayerNorm | nn.Embedding)
        or frozen(module)
    ]


def frozen(module: nn.Module) -> bool:
    """Returns whether a layer has weights that are not trained, such as filters computed from the data."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and not weight.requires_grad
