"""What every data set here has: splits, a spec, a place on disk that one process prepares, and this process's shard."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule

from arclight.data.samplers import Shard
from arclight.errors import InputError
from arclight.interfaces import DataInfo


class DataModule(LightningDataModule):
    """Train, validation and test batches of one data set, and the facts (`data_info`) that a model is built from.

    A subclass writes `prepare`, `load` and the three loaders. Data comes in two halves: `load("fit")` gives the training and
    validation split, `load("test")` the test split; fit never asks for the second.

    Args:
        root: folder (or archive) that holds the data; None for data made on the spot.
        batch_size: samples per optimizer step, over all processes and accumulated parts.
        max_batch_per_device: most samples that one process takes at once; None is no limit. What does not fit is accumulated.
        seed: of shuffling and augmentation; the train/validation split has its own.
    """

    info_type: ClassVar[type[DataInfo]]  # the kind of facts that this data promises

    def __init__(self, *, root: str | None, batch_size: int, max_batch_per_device: int | None = None, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("max_batch_per_device", max_batch_per_device)):
            if value is not None and value < 1:
                raise InputError(f"data.{name}={value} must be 1 or more")
        if seed < 0:
            raise InputError(f"seed={seed} must be 0 or more")
        self.root = None if root is None else Path(root).expanduser()
        self.batch_size = batch_size
        self.max_batch_per_device = max_batch_per_device
        self.seed = seed
        self.data_info: DataInfo | None = (
            None  # set by load, or before it by whoever restores a model that was built for this spec
        )
        self._prepared = False
        self._loaded: set[str] = set()

    @abstractmethod
    def prepare(self) -> None:
        """Brings the data to `root` and tells everything that is wrong with it, the test split's files included."""

    @abstractmethod
    def load(self, part: str) -> None:
        """Reads the splits of `part` ("fit" or "test") into memory; "fit" sets `data_info` unless it is set."""

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Samples in the training split."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Samples in each split that is loaded."""

    def examples(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What the samples in these rows look like, as plain data for the report; nothing of data that has no look."""
        return [{} for _ in rows]

    def dataset_summary(self) -> dict[str, Any]:
        """What the splits that are loaded look like, as plain data that the report shows: see data/examples.py."""
        return {}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.num_train // self.batch_size

    @property
    def shard(self) -> Shard:
        """The share of this process in each training batch; the whole of it without a trainer."""
        trainer = self.trainer
        if trainer is None:
            return Shard()
        return Shard(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)

    @property
    def eval_shard(self) -> Shard:
        """The share of this process in each validation or test batch, where nothing is accumulated."""
        return Shard(self.shard.rank, self.shard.world_size)

    @property
    def is_fixed(self) -> bool:
        """Whether every epoch is to have the same batches: `trainer.overfit_batches`."""
        return self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]  # set late

    @property
    def device(self) -> torch.device:
        """Where batches are wanted."""
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

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # the loaders give batches that lie on the device already
