"""`data=datasets`: plain data sets of torch, by YAML alone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Subset

from arclight.config.instantiate import call
from arclight.data.samplers import SPLIT, generator
from arclight.errors import InputError

Source = Dataset[Any] | functools.partial[Dataset[Any]]


class Datasets(LightningDataModule):
    """Loaders of data sets that know nothing of Lightning: torchvision's, Hugging Face's, your own.

    A missing split is drawn from the training data. Such a split does not get the training data's `transform`, but that of the
    test data, or none.

    Args:
        train: a map-style data set; with `_partial_: true` it is built when it is needed, not before.
        val: the same for validation; null draws `val_fraction` of the training data.
        test: the same for the test; null draws `test_fraction` of the training data.
        batch_size: global batch size: samples per optimizer step.
        val_fraction: above 0 and below 1, or 0 for no validation.
        test_fraction: above 0 and below 1, or 0 for no test.
        num_workers: processes that read samples; 0 reads them in the training process. null is chosen by the hardware plan.
        collate_fn: makes a batch of a list of samples; null is torch's.
        seed: of the splits.

    Raises:
        InputError: when a fraction is out of range.
    """

    def __init__(
        self,
        *,
        train: Source,
        val: Source | None = None,
        test: Source | None = None,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        num_workers: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= fraction < 1:
                raise InputError(f"data.{name}={fraction} must be 0 or more and below 1", key=f"data.{name}")
        if batch_size < 1:
            raise InputError(f"data.batch_size={batch_size} must be 1 or more", key="data.batch_size")
        self.sources = {"train": train, "val": val, "test": test}
        self.batch_size = batch_size
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.num_workers = num_workers or 0
        self.collate_fn = collate_fn
        self.seed = seed
        self.splits: dict[str, Dataset[Any]] = {}

    def prepare_data(self) -> None:
        """Builds the data sets once in one process, so that those with `download: true` download once."""
        for split, source in self.sources.items():
            if isinstance(source, functools.partial):
                call(source, f"data.{split}")

    def setup(self, stage: str) -> None:
        if self.splits:
            return
        built = {split: make(source, split) for split, source in self.sources.items() if source is not None}
        num_train = len(built["train"])  # type: ignore[arg-type]  # map-style
        missing = {split: round(num_train * fraction) for split, fraction in self.fractions.items() if split not in built}
        if sum(missing.values()) >= num_train:
            raise InputError(f"data: val_fraction and test_fraction leave none of the {num_train} training samples")
        rows = torch.randperm(num_train, generator=generator(self.seed, 0, 0, SPLIT)).tolist() if any(missing.values()) else []
        plain = without_augmentation(self.sources["train"], built["train"], built.get("test"))
        for split, size in missing.items():
            if size:
                drawn, rows = rows[:size], rows[size:]
                built[split] = Subset(plain, sorted(drawn))
        if rows:
            built["train"] = Subset(built["train"], sorted(rows))
        self.splits = built

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, where the training data has `classes`, as torchvision's data sets do."""
        dataset: Any = self.splits["train"]
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        return [str(name) for name in dataset.classes]

    @property
    def num_classes(self) -> int:
        """The number of classes, for `${data_info:num_classes}`."""
        return len(self.class_names)

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each split."""
        return {split: len(dataset) for split, dataset in self.splits.items()}  # type: ignore[arg-type]  # map-style

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._loader("test") if "test" in self.splits else []

    def _loader(self, split: str, *, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            self.splits[split],
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def make(source: Source, split: str) -> Dataset[Any]:
    """Returns the data set of a split, built if it is not yet."""
    return call(source, f"data.{split}") if isinstance(source, functools.partial) else source


def without_augmentation(source: Source | None, train: Dataset[Any], test: Dataset[Any] | None) -> Dataset[Any]:
    """Returns the training data with the `transform` of the test data, or none, in place of its own."""
    transform = getattr(test, "transform", None)
    if isinstance(source, functools.partial) and "transform" in source.keywords:
        return source(transform=transform)
    if not hasattr(train, "transform"):
        return train
    plain: Any = copy.copy(train)
    plain.transform = transform
    if hasattr(plain, "transforms") and hasattr(plain.transforms, "transform"):  # torchvision keeps both together
        plain.transforms = copy.copy(plain.transforms)
        plain.transforms.transform = transform
    return plain
