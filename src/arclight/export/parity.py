"""Compares an exported model with the trained one on real data, and computes its scores with the module's own test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from arclight.checkpoint.contents import Restored
from arclight.console.terminal import silence_lightning
from arclight.errors import InputError
from arclight.export.program import Call, Program, Tensors, replaced_forward
from arclight.inference.predictor import NO_OUTPUT
from arclight.interfaces import standard_name
from arclight.runs.evaluation import load_data
from arclight.runs.run_directory import HARMLESS

TOLERANCE = 1e-3  # largest difference of an output, in its own units
SAMPLES = "example inputs"
SPLITS = {"test_dataloader": "test split", "val_dataloader": "validation split", "train_dataloader": "training split"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parity:
    """What a comparison found: on which data, how many samples and labels, the labels that differ, the largest difference."""

    source: str
    num_samples: int
    num_labels: int
    num_different: int
    largest_difference: float
    tolerance: float

    def __str__(self) -> str:
        labels = f"{self.num_labels - self.num_different} of {self.num_labels} labels equal, " if self.num_labels else ""
        found = f"largest difference {self.largest_difference:.2g} (tolerance {self.tolerance:g})"
        return f"parity on {self.num_samples} samples of the {self.source}: {labels}{found}"

    def check(self) -> None:
        """Raises InputError when a label differs, or an output by more than the tolerance."""
        if self.num_different:
            raise InputError(f"nothing was written: the exported model predicts other labels. {self}")
        if not self.largest_difference <= self.tolerance:  # nan, too
            raise InputError(f"nothing was written: outputs differ by more than --tolerance. {self}")


def compare(program: Program, run: Call, batches: Iterable[Tensors], source: str, tolerance: float = TOLERANCE) -> Parity:
    """Returns how `run` differs from the program on these inputs. Infinities and nan in both count as equal."""
    num_samples = num_labels = num_different = 0
    largest = 0.0
    for inputs in batches:
        expected, found = program(inputs), tuple(output.detach() for output in run(inputs))
        num_samples += len(inputs[0])
        if program.labels:
            differs = expected[0].argmax(dim=-1) != found[0].argmax(dim=-1)
            num_different += int(differs.sum())
            num_labels += differs.numel() if program.counted is None else int(program.counted(inputs).sum())
        for one, other in zip(expected, found, strict=True):
            same = (one == other) | (one.isnan() & other.isnan())
            difference = (one.double() - other.double()).abs().masked_fill(same, 0)
            largest = max(largest, float(difference.max().nan_to_num(nan=torch.inf))) if difference.numel() else largest
    return Parity(source, num_samples, num_labels, num_different, largest, tolerance)


def example_batches(program: Program) -> Iterator[Tensors]:
    """Yields the program's example inputs in three batch sizes."""
    inputs = tuple(program.examples.values())
    for size in (1, 2, 5):
        yield tuple(torch.cat([value] * size)[:size] for value in inputs)


def batches_of(program: Program, loaders: Sequence[Any], limit: int | None = None) -> Iterator[Tensors]:
    """Yields the program's inputs of the batches of loaders, at most `limit` samples or a batch more."""
    num = 0
    for batch in chain.from_iterable(loaders):
        inputs = program.inputs_of(batch)
        yield inputs
        num += len(inputs[0])
        if limit is not None and num >= limit:
            return


def loader_of(data: LightningDataModule) -> str:
    """Returns the method whose batches are compared: of the test, else of the validation, else of the training split."""
    return next((name for name in SPLITS if is_overridden(name, data, parent=LightningDataModule)), "train_dataloader")


def loaders_of(data: LightningDataModule, name: str) -> list[Any]:
    """Returns the loaders that a method such as "val_dataloader" returns; data other than the test split is set up first."""
    if name != "test_dataloader":
        data.setup("fit")
    loaders = getattr(data, name)()
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


def data_on_disk(restored: Restored, overrides: Mapping[str, Any]) -> LightningDataModule | None:
    """Returns the run's data with its test split loaded; None, and a log line, where it is not on this machine."""
    root = {**restored.settings["data"], **overrides}.get("root")
    if isinstance(root, str) and not Path(root).expanduser().exists():
        log.warning(
            "data.root=%s is not on this machine: compared on %s; type data.root=DIRECTORY for real data", root, SAMPLES
        )
        return None
    try:
        data = load_data(restored, overrides)
    except InputError as error:
        if overrides:
            raise
        log.warning("compared on %s: %s", SAMPLES, error)
        return None
    if data is not None:
        data.prepare_data()
        data.setup("test")
    return data


def own_metrics(
    module: LightningModule, data: LightningDataModule, forward: Callable[..., Any] | None = None
) -> dict[str, float]:
    """Returns what the module's own test logs on the CPU, by name in results.json; `forward` replaces the exported net."""
    with silence_lightning(HARMLESS), replaced_forward(module, forward) if forward is not None else nullcontext():
        trainer = Trainer(accelerator="cpu", devices=1, **NO_OUTPUT)
        logged = trainer.test(module, datamodule=data, verbose=False)
    return {standard_name("test", name): float(value) for loader in logged for name, value in loader.items()}
