"""A project that is neither images nor text: a regression on a table of numbers, for tests of the engine alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from arclight.data.datamodule import DataModule
from arclight.data.samplers import EvalSampler, TrainSampler
from arclight.interfaces import DataInfo, Monitor
from arclight.modules.supervised import SupervisedModule

SIZES = {"train": 64, "val": 16, "test": 20}


@dataclass(frozen=True, kw_only=True)
class TableInfo(DataInfo):
    """Metadata of the table."""

    num_features: int


class Loader:
    """Yields (features (B, F), targets (B,)) in the order of a sampler; rows that only fill a batch are left out."""

    def __init__(self, features: Tensor, targets: Tensor, sampler: TrainSampler | EvalSampler) -> None:
        self.features, self.targets, self.sampler = features, targets, sampler
        self.batch_sampler = None  # Lightning reads it

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self.sampler:
            kept = rows.indices[rows.indices >= 0]
            yield self.features[kept], self.targets[kept]

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict() if isinstance(self.sampler, TrainSampler) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if isinstance(self.sampler, TrainSampler):
            self.sampler.load_state_dict(state)


class Table(DataModule):
    """Targets are a fixed linear function of random features."""

    info_type = TableInfo

    def __init__(
        self, *, num_features: int = 4, batch_size: int = 8, max_batch_per_device: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(root=None, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        self.num_features = num_features
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}

    def prepare(self) -> None:
        """Nothing to download."""

    def load(self, part: str) -> None:
        weights = torch.arange(1.0, self.num_features + 1)
        for number, (split, size) in enumerate(SIZES.items()):
            features = torch.randn(size, self.num_features, generator=torch.Generator().manual_seed(number))
            self.splits[split] = features, features @ weights
        self.data_info = self.data_info or TableInfo(num_features=self.num_features)

    @property
    def num_train(self) -> int:
        return SIZES["train"]

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(targets) for split, (_, targets) in self.splits.items()}

    def train_dataloader(self) -> Loader:
        sampler = TrainSampler(self.num_train, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        return Loader(*self.splits["train"], sampler)

    def val_dataloader(self) -> Loader:
        return Loader(*self.splits["val"], EvalSampler(torch.arange(SIZES["val"]), self.batch_size, shard=self.eval_shard))

    def test_dataloader(self) -> Loader:
        return Loader(*self.splits["test"], EvalSampler(torch.arange(SIZES["test"]), self.batch_size, shard=self.eval_shard))


class Linear(nn.Module):
    """Features (B, F) -> predictions (B, 1)."""

    def __init__(self, data_info: TableInfo, *, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(data_info.num_features, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        predictions: Tensor = self.layer(features)
        return predictions


class Regression(SupervisedModule):
    """Squared error."""

    info_type = TableInfo
    monitor: ClassVar[Monitor] = Monitor("val/loss", "min")

    def loss(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        return nn.functional.mse_loss(logits.flatten(), labels, reduction=reduction)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.training_loss((batch[0],), batch[1])

    def update_metrics(self, batch: Any) -> None:
        self.update_loss(self.net(batch[0]).float(), batch[1])
