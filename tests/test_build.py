"""Targets are built from plain settings, and every mistake names its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arclight.build import build
from arclight.data.augment import Augment
from arclight.errors import InputError

AUGMENT = "arclight.data.augment.Augment"


def test_nested_targets_are_built() -> None:
    made = build({"_target_": "torch.nn.Sequential"}, "model")
    assert isinstance(made, torch.nn.Sequential)
    assert build({"_target_": AUGMENT, "crop": 4}, "data.augment").crop == 4
    shapes = build(
        {
            "_target_": "arclight.data.shapes.Shapes",
            "num_train": 8,
            "batch_size": 4,
            "augment": {"_target_": AUGMENT, "flip": True},
        },
        "data",
    )
    assert isinstance(shapes.augment, Augment)


def test_a_partial_takes_the_rest_later() -> None:
    optimizer = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, "optimizer")
    weight = torch.nn.Parameter(torch.zeros(2))
    assert optimizer([weight]).param_groups[0]["lr"] == 0.5


def test_given_objects_arrive_as_they_are() -> None:
    class Marker: ...

    marker = Marker()
    made = build({"_target_": "torch.utils.data.DataLoader", "batch_size": 2}, "loader", {"dataset": [marker]})
    assert made.dataset[0] is marker


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop": 1}, "data needs a _target_"),
        ({"_target_": "os.system", "command": "true"}, r"data: _target_ 'os.system' is outside the packages"),
        ({"_target_": "arclight.data.augment.Nothing"}, "data: _target_ 'arclight.data.augment.Nothing' names nothing"),
        ({"_target_": "arclight.nowhere.Thing"}, "names nothing that can be imported"),
        ({"_target_": AUGMENT, "corp": 1}, r"data.corp: Augment takes no 'corp'. Did you mean 'crop'\?"),
        ({"_target_": AUGMENT, "crop": "much"}, r"data.crop='much' must be a whole number$"),
        ({"_target_": AUGMENT, "flip": 7}, "data.flip=7 must be true or false or alternating"),
        ({"_target_": "arclight.data.image_folder.ImageFolder"}, r"data: ImageFolder needs root; add data.root=\.\.\. to"),
        ({"_target_": AUGMENT, "flip": "alternatin"}, r"must be true or false or alternating. Did you mean 'alternating'\?"),
        ({"_target_": AUGMENT, "crop": "2"}, "data.crop='2' must be a whole number$"),
        ({"_target_": AUGMENT, "crop": True}, "data.crop=True must be a whole number$"),
        ({"_target_": AUGMENT, "crop": 2.0}, "data.crop=2.0 must be a whole number$"),
        ({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": "1e-3x"}, "data.lr='1e-3x' must be a number or Tensor"),
        (
            {"_target_": "arclight.training.schedules.steps", "_partial_": True, "milestones": [0.5, "0.7"]},
            r"data.milestones=\[0.5, '0.7'\] must be a list \(of a number each\)",
        ),
        (
            {"_target_": "lightning.pytorch.Trainer", "plugins": [{"_target_": AUGMENT, "corp": 1}]},
            "data.plugins.0.corp: Augment takes no 'corp'",
        ),
        (
            {"_target_": "arclight.data.shapes.Shapes", "augment": {"_target_": AUGMENT, "corp": 1}},
            "data.augment.corp: Augment takes no 'corp'",
        ),
        ({"_target_": "arclight.data.shapes.Shapes", "augment": {"_target_": AUGMENT, "crop": -1}}, "crop=-1"),
        ({"_target_": "arclight.data.shapes.Shapes", "augment": {"_target_": "os.abort"}}, "data.augment: _target_ 'os.abort'"),
    ],
)
def test_a_mistake_names_its_place(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build(settings, "data")
