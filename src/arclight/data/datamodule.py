"""Base class of the toolkits' data modules: splits, data info, preparation by one process, and the shard of each process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule

from arclight.data.samplers import Shard
from arclight.errors import InputError
from arclight.interfaces import DataInfo

EvaluatedSplit = Literal["val", "test"]


class DataModule(LightningDataModule):
    """Train, validation and test batches of one data set, and the `data_info` that a model is built from.

    A subclass implements `prepare`, `load`, the sizes and the three dataloaders. `load("fit")` reads the training and the
    validation split, `load("test")` the test split.

    Args:
        root: directory (or archive) of the data; None for synthetic data.
        batch_size: global batch size: samples per optimizer step.
        max_batch_per_device: largest micro-batch of one process; larger batches are accumulated. None is no limit.
        seed: of shuffling and augmentation; the train/validation split has its own.
    """

    info_type: ClassVar[type[DataInfo]]

    def __init__(self, *, root: str | None, batch_size: int, max_batch_per_device: int | None = None, seed: int = 0) -> None:
        super().__init__()
        check_minimum(1, {"batch_size": batch_size, "max_batch_per_device": max_batch_per_device})
        if seed < 0:
            raise InputError(f"seed={seed} must be 0 or more")
        self.root = None if root is None else Path(root).expanduser()
        self.batch_size = batch_size
        self.max_batch_per_device = max_batch_per_device
        self.seed = seed
        self.data_info: DataInfo | None = None  # set by load, or earlier where a trained model is restored
        self.evaluated_split: EvaluatedSplit | None = None  # set by evaluate, which needs no other split
        self.is_other_data = False  # set by evaluate: not what the model was trained on, so that no part of it is left out
        self._prepared = False
        self._loaded: set[str] = set()

    @abstractmethod
    def prepare(self) -> None:
        """Downloads what is missing and raises InputError for everything that is wrong with the data, all splits included."""

    @abstractmethod
    def load(self, part: str) -> None:
        """Reads the splits of `part` ("fit" or "test") into memory; "fit" sets `data_info` unless it is set."""

    def needs(self, split: str) -> bool:
        """Whether "train", "val" or "test" is used: all are, unless one of them is evaluated."""
        return self.evaluated_split in (None, split)

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Samples in the training split."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Samples in each loaded split."""

    def fingerprint(self) -> str | None:
        """Returns a hash of the training data's content, the same on every machine; None if there is none."""
        return None

    def previews(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the samples in these rows as plain values that the report shows; empty where there is nothing to show."""
        return [{} for _ in rows]

    def sample_fields(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns plain values that identify the samples in these rows; predictions.jsonl holds them beside the predictions."""
        return [{} for _ in rows]

    def dataset_summary(self) -> dict[str, Any]:
        """Returns counts and sample previews of the loaded splits as plain values that the report shows."""
        return {}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.num_train // self.batch_size

    @property
    def shard(self) -> Shard:
        """The slice of this process in each training batch; all of it without a trainer."""
        trainer = self.trainer
        return Shard() if trainer is None else Shard(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)

    @property
    def eval_shard(self) -> Shard:
        """The slice of this process in each validation or test batch, where nothing is accumulated."""
        return Shard(self.shard.rank, self.shard.world_size)

    @property
    def is_fixed(self) -> bool:
        """Whether every epoch has the same batches: `trainer.overfit_batches`."""
        return self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]  # set late

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def prepare_data(self) -> None:
        if not self._prepared:
            self.prepare()
            self._prepared = True

    def setup(self, stage: str) -> None:
        part = "test" if stage == "test" else "fit"
        if part not in self._loaded:
            self.load(part)
            self._loaded.add(part)

    @abstractmethod
    def train_dataloader(self) -> Iterable[Any]: ...

    @abstractmethod
    def val_dataloader(self) -> Iterable[Any]: ...

    @abstractmethod
    def test_dataloader(self) -> Iterable[Any]: ...


def check_minimum(minimum: int, settings: Mapping[str, int | None]) -> None:
    """Raises InputError that names every setting of `data` below the minimum; None is allowed."""
    too_low = {name: value for name, value in settings.items() if value is not None and value < minimum}
    if too_low:
        raise InputError("\n".join(f"data.{name}={value} must be {minimum} or more" for name, value in too_low.items()))
