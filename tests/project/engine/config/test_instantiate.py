"""Targets are built from plain settings, and every mistake names its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arclight.config.instantiate import build
from arclight.errors import InputError
from arclight.images.augment import Augment

AUGMENT = "arclight.images.augment.Augment"


def test_nested_targets_are_built() -> None:
    made = build({"_target_": "torch.nn.Sequential"}, "model")
    assert isinstance(made, torch.nn.Sequential)
    assert build({"_target_": AUGMENT, "crop": 4}, "data.augment").crop == 4
    shapes = build(
        {
            "_target_": "project.data.synthetic_images.SyntheticImages",
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
    module = torch.nn.Identity()
    made = build({"_target_": "torch.nn.ModuleList"}, "model", {"modules": [module]})
    assert made[0] is module


def test_targets_in_lists_and_in_plain_settings_are_built() -> None:
    layers = [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}, {"_target_": "torch.nn.ReLU"}]
    made = build({"_target_": "torch.nn.ModuleList", "modules": layers}, "model")
    assert [type(layer) for layer in made] == [torch.nn.Linear, torch.nn.ReLU]
    inner = {"first": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}}
    assert isinstance(build({"_target_": "torch.nn.ModuleDict", "modules": inner}, "model")["first"], torch.nn.Linear)


def test_a_text_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    made = build({"_target_": "torch.nn.ParameterDict", "parameters": {"a": "${oc.env:PLANTED}"}}, "model")
    assert made["a"] == "${oc.env:PLANTED}"


HOSTILE = [
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load_inline",
    "transformers.pipeline",
    "torchmetrics.multimodal.CLIPScore",  # trusts code from the hub
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "builtins.eval",
    "arclight.runs.resume.discard",  # removes a directory
    "arclight.launch.launcher.run",
    "arclight.data.download.os.system",  # what a module imports is not its own
    "arclight.data.download.shutil.rmtree",
    "arclight.data.download.urllib.request.urlopen",
    "arclight.loggers.factory.importlib.import_module",
    "arclight.checkpoint.single_file.torch.load",
    "arclight.loggers.factory.build",
    "torch.nn.modules.module.torch.load",
    "torch.nn.attention._fa3._fa3_import_module",  # private
    "project.lightning_modules.image_classifier.ImageClassifier.load_from_checkpoint",  # reads a pickle
    "lightning.pytorch.Trainer.from_argparse_args",
    "lightning.pytorch.core.module.LightningModule.load_from_checkpoint",
    "project.models.cnn.Cnn.__init__",
    "project.models.cnn.Cnn.__class__",
    "torch.nnx.Linear",
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("place", ["outside", "argument", "in a list", "deep inside", "by position"])
def test_what_a_config_may_not_call_is_refused_wherever_it_stands(target: str, place: str) -> None:
    bad = {"_target_": target}
    settings: dict[str, Any] = {
        "outside": bad,
        "argument": {"_target_": "project.data.synthetic_images.SyntheticImages", "augment": bad},
        "in a list": {"_target_": "torch.nn.ModuleList", "modules": [bad]},
        "deep inside": {"_target_": "torch.nn.ModuleDict", "modules": {"a": [{"b": bad}]}},
        "by position": {"_target_": "torch.nn.Sequential", "_args_": [bad]},
    }
    with pytest.raises(
        InputError, match="is outside the packages|is private|is neither a class nor|names nothing|takes no '_args_'"
    ):
        build(settings[place], "model")


def test_nothing_that_is_refused_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra.utils

    monkeypatch.setattr(hydra.utils, "get_object", lambda name: pytest.fail(f"{name} was imported"))
    for target in ("antigravity.fly", "torch.hub.load", "torch.nn._private.x"):
        with pytest.raises(InputError):
            build({"_target_": target}, "model")


def test_a_function_with_open_arguments_takes_no_special_key() -> None:
    with pytest.raises(InputError, match="model._args_: "):
        build({"_target_": "lightning.pytorch.loggers.WandbLogger", "_args_": ["x"]}, "model")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop": 1}, "data needs a _target_"),
        ({"_target_": "os.system", "command": "true"}, r"data: _target_ 'os.system' is outside the packages"),
        ({"_target_": "arclight.images.augment.Nothing"}, "data: _target_ 'arclight.images.augment.Nothing' names nothing"),
        ({"_target_": "project.models.nowhere.Thing"}, "names nothing that can be imported"),
        ({"_target_": "arclight.nowhere.Thing"}, "ALLOWED_PACKAGES in src/arclight/config/instantiate.py is the list to widen"),
        ({"_target_": "project.models.cnn.nn.Linear.forward"}, "is neither a class nor a function of a module; name one"),
        ({"_target_": "arclight.data.download.shutil.rmtree"}, "rmtree', which is shutil.rmtree, is outside the packages"),
        ({"_target_": "torch.nn._reduction.get_enum"}, "is private to its package; name what the package offers to others"),
        ({"_target_": AUGMENT, "corp": 1}, r"data.corp: Augment takes no 'corp'. Did you mean 'crop'\?"),
        ({"_target_": AUGMENT, "crop": "much"}, r"data.crop='much' must be a whole number$"),
        ({"_target_": AUGMENT, "flip": 7}, "data.flip=7 must be true or false or alternating"),
        ({"_target_": "project.data.image_folder.ImageFolder"}, r"data: ImageFolder needs root; add data.root=\.\.\. to"),
        ({"_target_": AUGMENT, "flip": "alternatin"}, r"must be true or false or alternating. Did you mean 'alternating'\?"),
        ({"_target_": AUGMENT, "crop": "2"}, "data.crop='2' must be a whole number$"),
        ({"_target_": AUGMENT, "crop": True}, "data.crop=True must be a whole number$"),
        ({"_target_": AUGMENT, "crop": 2.0}, "data.crop=2.0 must be a whole number$"),
        ({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": "1e-3x"}, "data.lr='1e-3x' must be a number or Tensor"),
        (
            {"_target_": "arclight.optim.schedulers.steps", "_partial_": True, "milestones": [0.5, "0.7"]},
            r"data.milestones=\[0.5, '0.7'\] must be a list \(of a number each\)",
        ),
        (
            {"_target_": "lightning.pytorch.Trainer", "plugins": [{"_target_": AUGMENT, "corp": 1}]},
            "data.plugins.0.corp: Augment takes no 'corp'",
        ),
        (
            {"_target_": "project.data.synthetic_images.SyntheticImages", "augment": {"_target_": AUGMENT, "corp": 1}},
            "data.augment.corp: Augment takes no 'corp'",
        ),
        (
            {"_target_": "project.data.synthetic_images.SyntheticImages", "augment": {"_target_": AUGMENT, "crop": -1}},
            "crop=-1",
        ),
        (
            {"_target_": "project.data.synthetic_images.SyntheticImages", "augment": {"_target_": "os.abort"}},
            "data.augment: _target_ 'os.abort'",
        ),
    ],
)
def test_a_mistake_names_its_place(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build(settings, "data")
