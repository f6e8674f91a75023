"""Data path, net, optimizer and precision of `python train.py` in a bare loop: the difference is what Lightning costs.

    python -m benchmarks.raw_loop --steps N OVERRIDES...

Prints one line of JSON. No Trainer, callbacks, loggers or checkpoints.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from arclight import hardware
from arclight.benchmark.training_step import compose, loss_of
from arclight.callbacks.throughput import NUM_FIRST
from arclight.checkpoint.contents import build_module
from arclight.config.hardware_plan import plan_hardware
from arclight.data.datamodule import DataModule
from arclight.hardware.peak_measurement import synchronize
from arclight.interfaces import num_samples, unit_counts
from arclight.modules.supervised import SupervisedModule
from arclight.optim.param_groups import parameter_groups, read_rates
from arclight.runs import build
from benchmarks.tasks import batches


def run(num_steps: int, overrides: list[str]) -> dict[str, float]:
    """Returns samples, tokens and steps per second, named as in results.json."""
    settings = compose(overrides)
    decisions = plan_hardware(settings, hardware.probe())
    hardware.apply_backend_settings(decisions)
    torch.manual_seed(settings["seed"])
    data = build.build_data(settings, workers=decisions["workers"].value)
    data.prepare_data()
    data.setup("fit")
    assert data.data_info is not None
    module = build_module(settings, data.data_info, channels_last=decisions["channels_last"].value)
    device = torch.device("cuda" if decisions["accelerator"].value == "cuda" else "cpu")
    return measure(module.to(device).train(), data, str(decisions["precision"].value), settings["trainer"], num_steps, device)


def measure(
    module: SupervisedModule, data: DataModule, precision: str, trainer: dict[str, Any], num_steps: int, device: torch.device
) -> dict[str, float]:
    """Runs the loop and returns its speed."""
    optimizer = make_optimizer(module)
    context: Any = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False) if precision == "bf16-mixed" else None
    clip = trainer.get("gradient_clip_val")
    began, samples, tokens = 0.0, 0, 0
    for step, batch in enumerate(batches(data, NUM_FIRST + num_steps, device)):
        if step == NUM_FIRST:
            synchronize(device)
            began = time.perf_counter()
        with context or nullcontext():
            loss = loss_of(module, batch)
        # here, as in Lightning's loop: freed after the step, gradients would leave the heap and be allocated again each time
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(module.net.parameters(), clip)
        optimizer.step()
        if step >= NUM_FIRST:
            samples += num_samples(batch)
            tokens += unit_counts(batch).get("tokens", 0)
    synchronize(device)
    seconds = time.perf_counter() - began
    numbers = {"samples_per_s": samples / seconds, "step_ms": 1000 * seconds / num_steps}
    if tokens:
        numbers["tokens_per_s"] = tokens / seconds
    return {f"train/{name}": value for name, value in numbers.items()}


def make_optimizer(module: SupervisedModule) -> torch.optim.Optimizer:
    """Returns the module's own optimizer, fused like in training."""
    lr, weight_decay = read_rates(module.make_optimizer)
    groups = parameter_groups(module.net, lr=lr, weight_decay=weight_decay, layer_decay=module.layer_decay)
    return module.make_optimizer(groups, fused=True)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print(json.dumps(run(options.steps, options.overrides)))


if __name__ == "__main__":
    main()
