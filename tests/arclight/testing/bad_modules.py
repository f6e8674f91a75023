"""Modules and data that cannot be trained, each in one way that users meet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler


class Samples(Dataset[Tensor]):
    """Rows of three numbers; `problem` is what is wrong with them."""

    def __init__(self, problem: str = "", size: int = 24) -> None:
        self.problem = problem
        self.size = size

    def __len__(self) -> int:
        if self.problem == "length_changes":
            self.size += 1
        return self.size

    def __getitem__(self, index: int) -> Any:
        if self.problem == "ragged":
            return torch.ones(3 + index % 2)
        if self.problem == "ragged_list":
            return [1.0] * (3 + index % 2)
        if self.problem == "object":
            return object()
        if self.problem == "worker_dies" and torch.utils.data.get_worker_info() is not None:
            os._exit(3)
        if self.problem == "not_a_number" and index == 7:
            return torch.full((3,), torch.nan)
        return torch.ones(3) * index / self.size


class Stream(IterableDataset[Tensor]):
    """The same from an iterator."""

    def __init__(self, problem: str) -> None:
        self.samples = Samples(problem)

    def __iter__(self) -> Iterator[Tensor]:
        for index in range(24):
            yield self.samples[index]


class Batches:
    """A loader of the user's own, whose second batch is empty."""

    def __iter__(self) -> Iterator[Tensor]:
        yield from (torch.ones(4, 3), torch.ones(0, 3))


class Chunks(Sampler[list[int]]):
    """A batch sampler of the user's own."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([first, first + 1, first + 2] for first in range(0, 24, 3))

    def __len__(self) -> int:
        return 8


def nothing(samples: list[Any]) -> Any:
    """Filters all samples out of some batches."""
    return torch.stack(samples)[: 0 if float(samples[0][0]) > 0.5 else None]


def none(samples: list[Any]) -> None:
    """Forgets to return."""


class Data(LightningDataModule):
    """Its loader has what `problem` says."""

    def __init__(self, problem: str = "", batch_size: int = 4, num_workers: int = 0) -> None:
        super().__init__()
        self.problem, self.num_workers = problem, num_workers
        self.samples = Samples(problem)

    def train_dataloader(self) -> Any:
        if self.problem == "batch_sampler":
            return DataLoader(self.samples, batch_sampler=Chunks())
        if self.problem == "stream_ragged":
            return DataLoader(Stream("ragged"), batch_size=4)
        if self.problem == "stream_empty":
            return Batches()
        collate = {"empty": nothing, "none": none}.get(self.problem)
        size = 6 if self.problem == "other_size" else 4
        return DataLoader(self.samples, batch_size=size, shuffle=True, num_workers=self.num_workers, collate_fn=collate)


class Module(LightningModule):
    """Fits a mean; with a secret among its hyperparameters."""

    def __init__(self, api_key: str | None = None, optimizer: str = "sgd") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.mean = nn.Parameter(torch.zeros(3))

    def training_step(self, batch: Tensor) -> Tensor:
        loss = (batch - self.mean).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return None if self.hparams.optimizer == "none" else torch.optim.SGD([self.mean], 0.1)


class NoStep(LightningModule):
    """Has no training_step."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)


class NoOptimizer(LightningModule):
    """Has no configure_optimizers."""

    def training_step(self, batch: Tensor) -> None:
        return None


def make_module(kind: str) -> LightningModule:
    """Returns a module, whose class the config does not name."""
    return {"no_step": NoStep, "no_optimizer": NoOptimizer}[kind]()
