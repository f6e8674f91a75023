"""What a data module gets that its config does not set."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import LightningDataModule

from arclight.data.datasets import Datasets
from arclight.runs.build import build_data

HERE = "tests.arclight.runs.test_build"


class WithDefaults(LightningDataModule):
    """Has a seed and workers of its own, or none."""

    def __init__(self, seed: int | None = 42, num_workers: int | None = 0) -> None:
        super().__init__()
        self.seed, self.num_workers = seed, num_workers


class Undecided(LightningDataModule):
    """Leaves both to its caller."""

    def __init__(self, seed: int, num_workers: int | None = None) -> None:
        super().__init__()
        self.seed, self.num_workers = seed, num_workers


def built(**config: Any) -> Any:
    return build_data({"seed": 7, "data": config}, workers=3)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_target_": f"{HERE}.WithDefaults"}, (42, 0)),
        ({"_target_": f"{HERE}.WithDefaults", "num_workers": None}, (42, 3)),
        ({"_target_": f"{HERE}.WithDefaults", "seed": None, "num_workers": 1}, (7, 1)),
        ({"_target_": f"{HERE}.Undecided"}, (7, 3)),
        ({"_target_": f"{HERE}.Undecided", "seed": 5}, (5, 3)),
    ],
)
def test_a_data_module_of_any_origin_keeps_its_defaults(config: dict[str, Any], expected: tuple[int, int]) -> None:
    data = built(**config)
    assert (data.seed, data.num_workers) == expected


def test_those_of_the_engine_get_both() -> None:
    data = built(
        _target_="arclight.data.datasets.Datasets",
        train={"_target_": "torch.utils.data.StackDataset", "x": [1, 2]},
        batch_size=1,
    )
    assert isinstance(data, Datasets)
    assert (data.seed, data.num_workers) == (7, 3)
