"""One training step of a real task on a real batch: forward, backward and update, and the arithmetic in it."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from arclight.benchmark.backend import Backend, applied, autocast
from arclight.callbacks.flops import count_flops
from arclight.checkpoint.contents import build_module
from arclight.config.compose import compose_with_hydra, explain_config_errors, to_run_config
from arclight.config.instantiate import build, find_target
from arclight.data.datamodule import DataModule
from arclight.errors import InputError
from arclight.images.info import ImageBatch, ImageInfo
from arclight.interfaces import DataInfo
from arclight.modules.supervised import SupervisedModule
from arclight.text.info import TokenBatch

# By the kind of data a model learns from: data made on the spot, and what else makes a net of a usual size without a download.
MADE_IMAGES = {"data": "synthetic_images", "data.batch_size": "64"}
MADE_TEXT = {
    "data": "synthetic_text",
    "data.batch_size": "16",
    "optimizer": "adamw",
    "model.checkpoint": "null",
    "model.num_hidden_layers": "4",
    "model.hidden_size": "256",
    "model.num_attention_heads": "4",
}
NUM_BATCHES = 50  # of which the one of middle length is taken


class Work(NamedTuple):
    """What is in a batch: samples, subwords that are no padding, positions with padding (both 0 for images)."""

    samples: int
    tokens: int
    positions: int


@dataclass(frozen=True)
class Sample:
    """The config, the facts of its data, and one training batch of it; a float `flops` is one step's, forward and backward.

    FLOPs are those of matrix products and convolutions. Of text they are those of the real subwords: padding is no work.
    """

    overrides: tuple[str, ...]
    settings: dict[str, Any]
    data_info: DataInfo
    batch: ImageBatch | TokenBatch
    work: Work
    flops: float


def with_defaults(overrides: Sequence[str], defaults: dict[str, str]) -> list[str]:
    """The overrides, after those defaults that they leave standing: `data=...` drops the defaults below `data`, too."""
    given = {key_of(override) for override in overrides}
    kept = [f"{key}={value}" for key, value in defaults.items() if key not in given and key.partition(".")[0] not in given]
    return [*kept, *overrides]


def key_of(override: str) -> str:
    """What it overrides, without the signs of Hydra before it."""
    return override.lstrip("+~").partition("=")[0]


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that `python train.py OVERRIDES...` would run with; no folder is made.

    Raises:
        InputError: for a mistake in the overrides.
    """
    with explain_config_errors(overrides), compose_with_hydra(overrides) as config:
        return to_run_config(config, Path(), started=0.0).settings


def made_data(model: str) -> dict[str, str]:
    """Overrides that give a model data made on the spot, of the kind that it learns from.

    Raises:
        InputError: when there is no such model.
    """
    settings = compose([f"model={model}"])
    kind = find_target(settings["module"]["_target_"], "module").info_type
    return {"model": model, **(MADE_IMAGES if kind is ImageInfo else MADE_TEXT)}


def make_sample(overrides: Sequence[str]) -> Sample:
    """Config, data and batch of these overrides.

    Raises:
        InputError: for a mistake in the overrides, or an epoch without a whole batch.
    """
    settings = compose(overrides)
    data: DataModule = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    if data.num_train < data.batch_size:
        raise InputError(f"data.batch_size={data.batch_size} is larger than the training split of {data.num_train} samples")
    batches = itertools.islice(data.train_dataloader(), NUM_BATCHES)
    by_length = sorted(batches, key=lambda batch: batch.input_ids.numel() if isinstance(batch, TokenBatch) else 0)
    batch: ImageBatch | TokenBatch = by_length[len(by_length) // 2]  # neither the longest sentences nor the shortest
    assert data.data_info is not None
    if isinstance(batch, TokenBatch):
        work = Work(len(batch.indices), batch.num_tokens, batch.input_ids.numel())
    else:
        work = Work(len(batch.indices), 0, 0)
    flops = count_flops(build_module(settings, data.data_info), batch)
    real_share = work.tokens / work.positions if work.positions else 1.0
    return Sample(tuple(overrides), settings, data.data_info, batch, work, flops * real_share)


def on_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors there."""
    return batch._make(part.to(device) if isinstance(part, Tensor) else part for part in batch)


def loss_of(task: SupervisedModule, batch: Any) -> Tensor:
    """The loss of a training step."""
    loss = task.training_step(batch)
    assert isinstance(loss, Tensor)
    return loss


class TrainingStep:
    """Call it to take one step, as training would take it with this backend.

    Args:
        sample: config and batch; every step takes the same batch.
        backend: the switches.
        device: where.
    """

    def __init__(self, sample: Sample, backend: Backend, device: torch.device) -> None:
        self.backend, self.device = backend, device
        seed_everything(sample.settings["seed"], verbose=False)
        task = build_module(with_layout(sample.settings, sample.data_info, backend), sample.data_info).to(device)
        self.task: SupervisedModule = task.train()
        if backend.compile:
            task.net.compile()
        self.batch = on_device(sample.batch, device)
        # no scaler and no fused update together: training has it so
        self.scaler = torch.amp.GradScaler(device.type, enabled=backend.precision == "fp16")
        takes_fused = "fused" in inspect.signature(task.make_optimizer.func).parameters
        given = {"fused": True} if takes_fused and backend.precision != "fp16" else {}
        self.optimizer = task.make_optimizer(task.net.parameters(), **given)

    def __call__(self) -> None:
        with applied(self.backend):
            with autocast(self.backend, self.device):
                loss = loss_of(self.task, self.batch)
            self.scaler.scale(loss).backward()  # both as they are where the scaler is off
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)


def with_layout(settings: dict[str, Any], data_info: DataInfo, backend: Backend) -> dict[str, Any]:
    """The settings with the backend's memory layout, for images."""
    if not isinstance(data_info, ImageInfo):
        return settings
    changed = copy.deepcopy(settings)
    changed["module"]["channels_last"] = backend.channels_last
    return changed
