from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from arclight.data.datasets import Datasets
from arclight.errors import InputError


class Pictures(Dataset[Any]):
    """As torchvision's: a transform and the names of the classes."""

    classes = ("cat", "dog")

    def __init__(self, size: int = 100, transform: Any = None) -> None:
        self.size, self.transform = size, transform

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return index if self.transform is None else self.transform(index)


def negate(index: int) -> int:
    return -1 - index


def rows(dataset: Any) -> list[int]:
    return [dataset[place] for place in range(len(dataset))]


@pytest.mark.parametrize("source", [Pictures(transform=negate), functools.partial(Pictures, transform=negate)])
def test_missing_splits_are_drawn_without_the_transform_of_the_training_data(source: Any) -> None:
    data = Datasets(train=source, val_fraction=0.2, test_fraction=0.1, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    assert data.sizes == {"train": 70, "val": 20, "test": 10}
    train, val, test = (rows(data.splits[split]) for split in ("train", "val", "test"))
    assert all(value < 0 for value in train)
    assert all(value >= 0 for value in [*val, *test])
    assert sorted([*(-1 - value for value in train), *val, *test]) == list(range(100))
    again = Datasets(train=source, val_fraction=0.2, test_fraction=0.1)
    again.setup("fit")
    assert rows(again.splits["val"]) == val


def test_given_splits_stay_as_they_are() -> None:
    test = Pictures(10, transform=float)
    data = Datasets(train=Pictures(50, transform=negate), test=test, val_fraction=0.1)
    data.setup("fit")
    assert data.splits["test"] is test
    assert all(isinstance(value, float) for value in rows(data.splits["val"]))  # the transform of the test data
    assert data.num_classes == 2
    assert data.class_names == ["cat", "dog"]
    assert len(next(iter(data.train_dataloader()))) == 45
    assert torch.equal(next(iter(data.test_dataloader())), torch.arange(10.0, dtype=torch.float64))


def test_no_fraction_no_split() -> None:
    data = Datasets(train=Pictures(50), val_fraction=0.0)
    data.setup("fit")
    assert data.sizes == {"train": 50}
    assert data.val_dataloader() == data.test_dataloader() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1.0}, r"data\.val_fraction=1\.0 must be 0 or more and below 1"),
        ({"test_fraction": -0.1}, r"data\.test_fraction=-0\.1 must be"),
        ({"batch_size": 0}, r"data\.batch_size=0 must be 1 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Datasets(train=Pictures(), **settings)


def test_fractions_that_leave_no_training_sample() -> None:
    with pytest.raises(InputError, match="leave none of the 10 training samples"):
        Datasets(train=Pictures(10), val_fraction=0.5, test_fraction=0.5).setup("fit")


def test_a_data_set_of_a_package_that_cannot_be_built_is_reported_with_its_split() -> None:
    data = Datasets(train=functools.partial(TensorDataset, torch.zeros(4), torch.zeros(3)), batch_size=2)
    with pytest.raises(
        InputError, match=r"^data.train: torch.utils.data.dataset.TensorDataset raised AssertionError: Size mismatch"
    ):
        data.prepare_data()
