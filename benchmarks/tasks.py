"""The two example tasks on generated data, and what the programs of this directory share on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from arclight.benchmark.command_line import BenchmarkOptions, add_arguments
from arclight.benchmark.training_step import with_defaults
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, device_name

# nets of a usual size that need no download
TASKS = {
    "images": {"data": "synthetic_images", "data.batch_size": "64", "model": "cnn"},
    "text": {
        "data": "synthetic_text",
        "data.batch_size": "16",
        "optimizer": "adamw",
        "model.checkpoint": "null",
        "model.num_hidden_layers": "4",
        "model.hidden_size": "256",
        "model.num_attention_heads": "4",
        "model": "bert_tagger",
    },
}


@dataclass(frozen=True, kw_only=True)
class TaskOptions(BenchmarkOptions):
    """What a program that measures one of the two tasks is given."""

    task: str = "images"

    def task_overrides(self) -> list[str]:
        """Returns the overrides after the defaults of the task."""
        return with_defaults(self.overrides, TASKS[self.task])


def new_parser(doc: str | None, *, has_task: bool = True, **arguments: Any) -> argparse.ArgumentParser:
    """Returns a parser with the arguments of all benchmarks; `arguments` are those of `add_arguments`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if has_task:
        parser.add_argument("--task", choices=tuple(TASKS), default="images", help="whose net and generated data are used")
    add_arguments(parser, **arguments)
    return parser


def batches(data: Any, num: int, device: torch.device) -> Iterator[Any]:
    """Yields so many training batches on the device, epoch after epoch; what the loader holds in memory is moved there once."""
    from lightning.fabric.utilities import move_data_to_device

    from arclight.images.loader import ArrayLoader
    from arclight.text.datamodule import TokenLoader

    epoch = 0
    loader: Any = data.train_dataloader()
    if isinstance(loader, ArrayLoader):
        if isinstance(loader.images, torch.Tensor):
            loader.images = loader.images.to(device)
        loader.labels = loader.labels.to(device)
    elif isinstance(loader, TokenLoader):
        loader.subwords.to(device)
    while num:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield move_data_to_device(batch, device)
            num -= 1
            if not num:
                return
        epoch += 1


def absolute_paths(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Returns the overrides, those of the keys that name an existing file or directory with its absolute path."""
    absolute = []
    for override in overrides:
        key, _, value = override.partition("=")
        absolute.append(f"{key}={Path(value).resolve()}" if key in keys and Path(value).exists() else override)
    return absolute


def unmeasured_peaks() -> MeasuredPeaks:
    """Returns the device without peaks, for programs that compare nothing with them."""
    device = choose_device("auto")
    return MeasuredPeaks(device.type, device_name(device), torch.get_num_threads(), {}, 0.0)
