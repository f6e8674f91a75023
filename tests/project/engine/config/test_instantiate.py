"""Objects are built from plain settings, every error names its place, and a stranger's config may name less."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.config import locations, trust
from arclight.config.instantiate import build, find_errors
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
    "arclight.data.download.tarfile.open",
    "arclight.loggers.factory.importlib.import_module",
    "arclight.checkpoint.single_file.torch.load",
    "arclight.loggers.factory.build",
    "torch.nn.modules.module.torch.load",
    "torch.nn.attention._fa3._fa3_import_module",  # private
    "project.lightning_modules.image_classifier.ImageClassifier.load_from_checkpoint",  # reads a pickle
    "lightning.pytorch.Trainer.from_argparse_args",
    "torchmetrics.functional.accuracy",
    "lightning.pytorch.core.module.LightningModule.load_from_checkpoint",
    "project.models.cnn.Cnn.__init__",
    "project.models.cnn.Cnn.__class__",
    "torch.nnx.Linear",
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("place", ["outside", "argument", "in a list", "deep inside", "by position"])
def test_a_stranger_s_config_may_not_call_it_anywhere(target: str, place: str) -> None:
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
        build(settings[place], "model", is_trusted=False)


def test_nothing_that_is_refused_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkgutil, "resolve_name", lambda name: pytest.fail(f"{name} was imported"))
    for target in ("antigravity.fly", "torch.hub.load", "torch.nn._private.x"):
        with pytest.raises(InputError):
            build({"_target_": target}, "model", is_trusted=False)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("timm.create_model", "checkpoint_path"),
        ("transformers.AutoModel.from_pretrained", "trust_remote_code"),
    ],
)
def test_factories_take_no_arguments_that_read_other_files(target: str, wrong: str) -> None:
    with pytest.raises(InputError, match=f"model.{wrong}: the config of a checkpoint may not give {target}"):
        build({"_target_": target, wrong: "x"}, "model", is_trusted=False)


def test_a_net_of_timm_takes_further_numbers_but_no_text() -> None:
    settings = {
        "_target_": "timm.create_model",
        "model_name": "vit_tiny_patch16_224",
        "patch_size": 4,
        "window": [2, 0.5, True],
    }
    trust.check_name("timm.create_model", "model", settings)
    with pytest.raises(InputError, match="model.cache_dir: the config of a checkpoint may not give"):
        trust.check_name("timm.create_model", "model", {**settings, "cache_dir": "/tmp"})


def test_what_a_stranger_s_config_may_build() -> None:
    assert isinstance(build({"_target_": "torch.nn.ReLU"}, "model", is_trusted=False), torch.nn.ReLU)
    metric = build({"_target_": "torchmetrics.Accuracy", "task": "binary"}, "metric", is_trusted=False)
    assert type(metric).__name__ == "BinaryAccuracy"


def test_the_user_s_config_may_build_anything_that_can_be_imported() -> None:
    import datetime

    assert build({"_target_": "datetime.timedelta", "days": 1}, "model") == datetime.timedelta(days=1)
    assert build({"_target_": "torch.nn.Linear.__name__.upper"}, "model") == "LINEAR"
    assert isinstance(build({"_target_": "builtins.dict", "a": 1}, "model"), dict)


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "__init__.py").write_text("")
    (tmp_path / "birds" / "net.py").write_text("import os\n\nclass Net:\n    pass\n\nclass Other:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_used", set())
    trust.is_local.cache_clear()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "birds"]:
        del sys.modules[name]
    trust.is_local.cache_clear()


def test_a_package_that_conf_names_is_trusted(own_package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"_target_": "birds.net.Other"}
    with pytest.raises(InputError, match="if it is yours, name it as a _target_ in a file under conf/"):
        build(other, "model", is_trusted=False)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "birds.yaml").write_text("_target_: birds.net.Net\n")
    (tmp_path / "conf" / "model" / "adam.yaml").write_text("_target_: torch.optim.Adam\n")
    monkeypatch.setattr(locations, "CONF", tmp_path / "conf")
    assert type(build(other, "model", is_trusted=False)).__name__ == "Other"
    with pytest.raises(InputError, match="'birds.net.os.getcwd', which is posix.getcwd, is outside|is neither a class"):
        build({"_target_": "birds.net.os.getcwd"}, "model", is_trusted=False)
    with pytest.raises(InputError, match="'torch.load' is outside"):  # naming one thing of an installed package trusts that one
        build({"_target_": "torch.load"}, "model", is_trusted=False)


def test_a_package_that_this_process_has_built_from_is_trusted(own_package: None) -> None:
    build({"_target_": "birds.net.Net"}, "model")
    assert type(build({"_target_": "birds.net.Other"}, "model", is_trusted=False)).__name__ == "Other"


def test_a_function_with_open_arguments_takes_no_special_key() -> None:
    with pytest.raises(InputError, match="model._args_: "):
        build({"_target_": "lightning.pytorch.loggers.WandbLogger", "_args_": ["x"]}, "model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 1}, "data needs a _target_"),
        ({"_target_": "arclight.images.augment.Nothing"}, "data: _target_ 'arclight.images.augment.Nothing' names nothing"),
        ({"_target_": "project.models.nowhere.Thing"}, "names nothing that can be imported"),
        ({"_target_": "torch.pi"}, "data: _target_ 'torch.pi' cannot be called; name a class or a function"),
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
    ],
)
def test_an_error_names_its_place(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(settings, "data")


def test_errors_carry_their_key_and_what_was_probably_meant() -> None:
    settings = {"_target_": AUGMENT, "corp": 1, "flip": "alternatin", "cutout": "x"}
    errors = find_errors(settings, "data.augment", {})
    assert [(error.key, error.suggestions) for error in errors] == [
        ("data.augment.corp", ("data.augment.crop",)),
        ("data.augment.flip", ("data.augment.flip=alternating",)),
        ("data.augment.cutout", ()),
    ]


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_optional_package_is_named_with_how_to_install_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    target = {"timm": "timm.create_model", "torchvision": "torchvision.models.get_model"}[package]
    with pytest.raises(
        InputError, match=f"model: '{target}' needs {package}, which is not installed; .*see https://pytorch.org"
    ):
        build({"_target_": target}, "model")


def test_what_an_installed_package_raises_is_one_message_and_own_code_keeps_its_traceback() -> None:
    with pytest.raises(InputError, match="^module.metrics: torchmetrics[a-z._]*.MulticlassAccuracy ") as caught:
        build({"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 1}, "module.metrics")
    assert "raised ValueError: " in str(caught.value)
    assert caught.value.key == "module.metrics"
    with pytest.raises(RuntimeError, match="^nothing to learn$"):
        build({"_target_": f"{__name__}.Refusing"}, "model")


class Refusing:
    def __init__(self) -> None:
        raise RuntimeError("nothing to learn")
