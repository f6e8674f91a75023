"""Runs a trained model over items, with bounded memory: the loop of `predict`, `serve` and `Run.predict`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from arclight import hardware
from arclight.checkpoint.contents import Restored
from arclight.config.locations import OUTPUTS
from arclight.console.terminal import silence_lightning
from arclight.errors import InputError, first_line
from arclight.hardware import Decision
from arclight.inference.pipeline import BadItem, InputPipeline, Item, Record, net_of, pipeline_for

NUMERICS = ("accelerator", "precision", "matmul_precision", "channels_last")  # hardware settings that change scores
HARMLESS = ("GPU available but not used", "You are using a CUDA device", "Precision .* is not supported by the model summary")
# arguments of a Trainer that writes and shows nothing
SILENT = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
NO_OUTPUT: dict[str, Any] = dict.fromkeys(SILENT, False)
BATCHES_READ = 16  # whose rows are sorted by length together

log = logging.getLogger(__name__)


class Predictor:
    """A trained model on a device, with the pipeline of its inputs.

    Args:
        restored: the model, as `restore` returns it.
        device: "auto" is what the run trained on; "cpu", "cuda", "cuda:1", "mps".
        batch_size: rows in a forward pass.

    Raises:
        InputError: for a device that this machine does not have, or a batch size below 1.
    """

    def __init__(self, restored: Restored, *, device: str = "auto", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be 1 or more")
        self.batch_size = batch_size
        self.pipeline: InputPipeline = pipeline_for(restored.module, restored.data_info)
        decisions = plan_device(restored, device)
        with silence_lightning(HARMLESS):
            trainer = Trainer(**hardware.for_trainer(decisions), **NO_OUTPUT)
        self.device: torch.device = trainer.strategy.root_device
        self._precision = trainer.precision_plugin
        self._forward = forward_of(self._precision.convert_module(restored.module).to(self.device).eval())

    def predict(self, items: Iterable[Item | BadItem], *, top_k: int | None = None) -> Iterator[Record | BadItem]:
        """Yields the record of each item in order, and bad items in their places; reads a few batches ahead."""
        waiting: list[Item | BadItem] = []
        num_rows = 0
        for item in items:
            waiting.append(item)
            num_rows += len(item.rows) if isinstance(item, Item) else 0
            if num_rows >= BATCHES_READ * self.batch_size:
                yield from self._predict(waiting, top_k)
                waiting, num_rows = [], 0
        yield from self._predict(waiting, top_k)

    def outputs(self, inputs: tuple[Tensor, ...]) -> Any:
        """Returns the model's output for arguments of `forward`, on the CPU, half-precision numbers as float32."""
        with torch.inference_mode(), self._precision.forward_context():
            outputs = self._forward(self._precision.convert_input(move_data_to_device(inputs, self.device)))
        return map_tensors(lambda tensor: tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu(), outputs)

    def _outputs_of(self, rows: list[Any]) -> Any:
        """Returns the model's output for rows; raises InputError where tensors do not fit the model, or the memory."""
        try:
            return self.outputs(self.pipeline.collate(rows))
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"batch_size={self.batch_size} needs more memory than {self.device} has; choose a smaller one"
            ) from error
        except RuntimeError as error:
            if self.pipeline.kind != "tensors":
                raise
            raise InputError(
                f"the model does not take these tensors: {first_line(error)}; set self.example_input_array in the module, and "
                "sizes are checked"
            ) from error

    def _predict(self, items: list[Item | BadItem], top_k: int | None) -> Iterator[Record | BadItem]:
        rows = [row for item in items if isinstance(item, Item) for row in item.rows]
        found: list[Any] = [None] * len(rows)
        by_length = sorted(range(len(rows)), key=lambda number: self.pipeline.length(rows[number]))
        for start in range(0, len(rows), self.batch_size):
            numbers = by_length[start : start + self.batch_size]
            outputs = self._outputs_of([rows[number] for number in numbers])
            for place, number in enumerate(numbers):
                found[number] = row_of(outputs, place)
        end = 0
        for item in items:
            if isinstance(item, BadItem):
                yield item
                continue
            start, end = end, end + len(item.rows)
            yield self.pipeline.record(item, found[start:end], top_k=top_k)


def map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Returns nested values with the function applied to every tensor."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, Mapping):
        return {key: map_tensors(function, value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [map_tensors(function, value) for value in values]
    return values


def row_of(outputs: Any, row: int) -> Any:
    """Returns one row of the outputs for a batch, whose tensors have the batch as their first dimension."""
    return map_tensors(lambda tensor: tensor[row] if tensor.dim() else tensor, outputs)


def forward_of(module: Any) -> Callable[[tuple[Tensor, ...]], Any]:
    """Returns what maps the arguments of `forward` to outputs: `predict_forward`, else `predict_step`, else `net_of`."""
    offered: Callable[..., Any] | None = getattr(module, "predict_forward", None)
    if offered is not None or not is_overridden("predict_step", module):
        called: Callable[..., Any] = offered or net_of(module)
        return lambda inputs: called(*inputs)
    index = (0,) if len(inspect.signature(module.predict_step).parameters) > 1 else ()
    return lambda inputs: module.predict_step(inputs[0] if len(inputs) == 1 else inputs, *index)


def is_own(restored: Restored) -> bool:
    """Returns whether a checkpoint is in outputs/, where the runs of this user are."""
    return restored.path.resolve().is_relative_to(OUTPUTS.resolve())


def plan_device(restored: Restored, device: str = "auto") -> dict[str, Decision]:
    """Applies and returns the hardware decisions with which a trained model is used: those of its run, in one process.

    Args:
        restored: the model.
        device: "auto", or one that replaces the run's: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: for a device that this machine does not have.
    """
    one_process: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto"}  # whatever it was trained in
    requested = hardware.requested_settings(restored.settings)
    if not is_own(restored):
        requested = {name: value for name, value in requested.items() if name in NUMERICS}
    chosen = {} if device == "auto" else device_settings(device)
    hardware_info = hardware.probe()
    try:
        decisions = hardware.plan(hardware_info, {**requested, **one_process, **chosen})
    except InputError as error:  # trained on another machine
        try:
            decisions = hardware.plan(hardware_info, {**one_process, **chosen})
        except InputError:
            raise InputError(f"device {device} is not on this machine; choose auto or cpu") from error
        log.warning("%s; used with what this machine has", error)
    hardware.apply_backend_settings(decisions)
    return decisions


def device_settings(device: str) -> dict[str, Any]:
    """Returns the trainer's settings for a device as torch names it; raises InputError for another name."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise InputError(f"device {device} must be auto, cpu, cuda, cuda:NUMBER or mps")
    return {"accelerator": kind, "devices": [int(number)] if number and kind == "cuda" else 1}
