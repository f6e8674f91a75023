"""Data path, net, optimizer and precision of `python train.py` in the barest loop there is: what Lightning adds is the rest.

`python -m arclight.benchmark.raw_loop STEPS OVERRIDES...` prints a line of JSON. No trainer, callbacks, trackers, checkpoints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from arclight import hardware
from arclight.benchmark.training_step import compose, loss_of, on_device
from arclight.callbacks.throughput import NUM_FIRST
from arclight.checkpoint.contents import build_module
from arclight.config.hardware_plan import plan_hardware
from arclight.data.datamodule import DataModule
from arclight.hardware.peak_measurement import synchronize
from arclight.images.loader import ArrayLoader
from arclight.modules.supervised import SupervisedModule
from arclight.optim.param_groups import parameter_groups, read_rates
from arclight.runs import build
from arclight.text.datamodule import TokenLoader
from arclight.text.info import TokenBatch


def run(num_steps: int, overrides: list[str]) -> dict[str, float]:
    """Samples, real tokens and steps a second, named as in results.json."""
    settings = compose(overrides)
    decisions = plan_hardware(settings, hardware.probe())
    hardware.apply_backend_settings(decisions)
    torch.manual_seed(settings["seed"])
    data = build.build_data(settings, workers=decisions["workers"].value)
    data.prepare_data()
    data.setup("fit")
    assert data.data_info is not None
    task = build_module(settings, data.data_info, channels_last=decisions["channels_last"].value)
    device = torch.device("cuda" if decisions["accelerator"].value == "cuda" else "cpu")
    return measure(task.to(device).train(), data, str(decisions["precision"].value), settings["trainer"], num_steps, device)


def measure(
    task: SupervisedModule, data: DataModule, precision: str, trainer: dict[str, Any], num_steps: int, device: torch.device
) -> dict[str, float]:
    """The loop."""
    optimizer = make_optimizer(task)
    context: Any = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False) if precision == "bf16-mixed" else None
    clip = trainer.get("gradient_clip_val")
    began, samples, tokens = 0.0, 0, 0
    for step, batch in enumerate(batches(data, NUM_FIRST + num_steps, device)):
        if step == NUM_FIRST:
            synchronize(device)
            began = time.perf_counter()
        with context or nullcontext():
            loss = loss_of(task, batch)
        # here, as in Lightning's loop: given back after the step, gradients would leave the heap and come anew each time
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(task.net.parameters(), clip)
        optimizer.step()
        if step >= NUM_FIRST:
            samples += len(batch.indices)
            tokens += batch.num_tokens if isinstance(batch, TokenBatch) else 0
    synchronize(device)
    seconds = time.perf_counter() - began
    numbers = {"samples_per_s": samples / seconds, "step_ms": 1000 * seconds / num_steps}
    if tokens:
        numbers["tokens_per_s"] = tokens / seconds
    return {f"train/{name}": value for name, value in numbers.items()}


def make_optimizer(task: SupervisedModule) -> torch.optim.Optimizer:
    """The task's own, fused where it can be, as training has it."""
    lr, weight_decay = read_rates(task.make_optimizer)
    groups = parameter_groups(task.net, lr=lr, weight_decay=weight_decay, layer_decay=task.layer_decay)
    return task.make_optimizer(groups, fused=True)


def batches(data: DataModule, num: int, device: torch.device) -> Iterator[Any]:
    """So many training batches on the device, epoch after epoch; what the data set holds in memory is moved there once."""
    epoch = 0
    loader: Any = data.train_dataloader()
    if isinstance(loader, ArrayLoader):
        if isinstance(loader.images, Tensor):
            loader.images = loader.images.to(device)
        loader.labels = loader.labels.to(device)
    elif isinstance(loader, TokenLoader):
        loader.subwords.to(device)
    while num:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield on_device(batch, device)
            num -= 1
            if not num:
                return
        epoch += 1


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), sys.argv[2:])) + "\n")
