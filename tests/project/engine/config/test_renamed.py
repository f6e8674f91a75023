"""Names of version 0.1 work on the command line, in conf/local/, and in old runs and checkpoints."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight.checkpoint.contents import find_intact, restore
from arclight.config import locations
from arclight.config.compose import compose, overrides_of, read_settings
from arclight.config.renamed import rename_arguments, rename_overrides, rename_settings, rename_target
from arclight.errors import InputError
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["tracker=csv"], ["logger=csv"]),
        (["tracker=[csv,wandb]", "~tracker.wandb"], ["logger=[csv,wandb]", "~logger.wandb"]),
        (["schedule=cosine", "schedule.warmup_fraction=0.1"], ["scheduler=cosine", "scheduler.warmup_fraction=0.1"]),
        (["+task.lr_rule=linear", "++task.x=1"], ["+module.lr_rule=linear", "++module.x=1"]),
        (["data=shapes"], ["data=synthetic_images"]),
        (["data=shapes,phrases"], ["data=synthetic_images,synthetic_text"]),
        (["hydra/output=run_folder"], ["hydra/output=run_dir"]),
        (["data=image_folder", "data.residence=disk"], ["data=image_folder", "data.storage=disk"]),
        (["hardware.keep_memory=true"], ["hardware.retain_heap=true"]),
        (["optimizer=muon", "optimizer.rest_lr=2,3"], ["optimizer=muon", "optimizer.sgd_lr=2,3"]),
        (["optimizer=muon", "+optimizer.num_rounds=5"], ["optimizer=muon", "+optimizer.ns_steps=5"]),
        (["data._target_=arclight.data.shapes.Shapes"], ["data._target_=project.data.synthetic_images.SyntheticImages"]),
        (["model=resnet18", "model.width=8"], ["model=resnet18", "model.width=8"]),  # a net that has this very name
        (
            ["-m", "--cfg", "job", "seed=1", "data.root=/data/shapes"],
            ["-m", "--cfg", "job", "seed=1", "data.root=/data/shapes"],
        ),
        (["taskk.x=1", "nonsense", "data.root='a=b"], ["taskk.x=1", "nonsense", "data.root='a=b"]),
    ],
)
def test_old_overrides(old: list[str], new: list[str]) -> None:
    assert rename_overrides(old) == new


def test_a_command_line_is_renamed_in_place_and_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train.py", "tracker=csv", "seed=3", "task.label_smoothing=0.1"]
    rename_arguments(arguments)
    assert arguments == ["train.py", "logger=csv", "seed=3", "module.label_smoothing=0.1"]
    assert capsys.readouterr().err == (
        "renamed: tracker=csv is now logger=csv, task.label_smoothing=0.1 is now module.label_smoothing=0.1 "
        "(the old names work until version 0.3)\n"
    )
    rename_arguments(arguments)
    assert capsys.readouterr().err == ""


def test_old_overrides_compose(capsys: pytest.CaptureFixture[str]) -> None:
    composed = compose(["data=shapes", "tracker=csv", "schedule=cosine", "task.label_smoothing=0.1"])
    assert (
        composed.settings
        == compose(["data=synthetic_images", "logger=csv", "scheduler=cosine", "module.label_smoothing=0.1"]).settings
    )
    assert composed.overrides == ("data=synthetic_images", "logger=csv", "scheduler=cosine", "module.label_smoothing=0.1")
    assert "data=shapes is now data=synthetic_images" in capsys.readouterr().err


def test_old_keys_in_the_settings_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(locations.CONF, tmp_path / "conf")
    monkeypatch.setattr(locations, "CONF", tmp_path / "conf")
    (tmp_path / "conf" / "local" / "default.yaml").write_text(
        "# @package _global_\ntracker:\n  wandb: {entity: my-team, mode: offline}\ntask: {label_smoothing: 0.2}\n"
        "hardware: {keep_memory: false}\n"
    )
    settings = compose(["logger.wandb.mode=online"]).settings
    assert settings["logger"]["wandb"]["entity"] == "my-team"
    assert settings["logger"]["wandb"]["mode"] == "online"  # the command line wins
    assert settings["module"]["label_smoothing"] == 0.2
    assert settings["hardware"]["retain_heap"] is False
    assert not {"tracker", "task"} & set(settings)
    assert "hardware.keep_memory is now hardware.retain_heap" in capsys.readouterr().err


def test_a_project_without_a_table_renames_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "CONF", tmp_path)
    assert rename_overrides(["tracker=csv"]) == ["tracker=csv"]
    assert rename_settings({"tracker": {}}) == {"tracker": {}}


def test_targets_are_renamed_by_module_or_by_name() -> None:
    assert rename_target("arclight.models.cnn.Cnn") == "project.models.cnn.Cnn"
    assert rename_target("arclight.modelsx.cnn.Cnn") == "arclight.modelsx.cnn.Cnn"
    assert rename_target("torch.optim.Adam") == "torch.optim.Adam"


def test_every_new_name_is_there() -> None:
    table = rename_settings.__globals__["_table"]
    for new in table("groups").values():
        assert (locations.CONF / new).is_dir()
    for group, options in table("options").items():
        for option in options.values():
            assert (locations.CONF / group / f"{option}.yaml").is_file()


# What version 0.1 wrote

OLD = {
    "data": {
        "_target_": "arclight.data.shapes.Shapes",
        "augment": {"_target_": "arclight.data.augment.Augment", "crop": 0, "flip": False, "cutout": 0},
    },
    "model": {"_target_": "arclight.models.cnn.Cnn"},
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3},
    "schedule": {"_target_": "arclight.training.schedules.constant", "_partial_": True, "warmup_fraction": 0.0},
    "task": {"_target_": "arclight.training.image_classifier.ImageClassifier", "label_smoothing": 0.0},
    "tracker": {"csv": {"_target_": "arclight.training.trackers.csv"}},
    "hardware": {"keep_memory": "auto"},
}


NEW_GROUPS = ("module", "scheduler", "logger")


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory in the form of version 0.1."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("old"))
    try:
        overrides = [*TINY_IMAGES, "trainer.max_epochs=1", "logger=none", "precision=fp32"]
        folder = arclight.run(overrides).folder.resolve()
    finally:
        os.chdir(before)
    for path in (folder / "checkpoints").glob("*.ckpt"):
        contents = torch.load(path, weights_only=True)
        ours = contents["arclight"]
        settings: dict[str, Any] = copy.deepcopy(ours["settings"])
        old: dict[str, Any] = {group: {**settings.get(group, {}), **values} for group, values in OLD.items()}
        old["schedule"], old["task"] = OLD["schedule"], {**settings["module"], **OLD["task"]}
        contents["arclight"] = {
            "version": 1,
            "settings": {
                **{key: value for key, value in settings.items() if key not in ("module", "scheduler", "logger")},
                **old,
            },
            "options": {**ours["options"], "data": "shapes"},
            "spec": {**ours["data_info"], "kind": "ImageSpec"},
            "blueprint": ours["blueprint"],
        }
        torch.save(contents, path)
    (folder / "overrides.txt").write_text("data=shapes\ntracker=csv\n")
    return folder


def test_an_old_checkpoint_is_restored(old_run: Path) -> None:
    restored = restore(old_run)
    assert type(restored.module).__name__ == "ImageClassifier"
    assert type(restored.data_info).__name__ == "ImageInfo"
    assert restored.data == "synthetic_images"
    assert restored.settings["logger"]["csv"]["_target_"] == "arclight.loggers.factory.csv"
    assert overrides_of(old_run) == ("data=synthetic_images", "logger=csv")


def test_an_old_run_is_not_resumed(old_run: Path) -> None:
    with pytest.raises(InputError, match=r"was written by arclight 0\.1, whose runs .* cannot resume; finish it with"):
        find_intact(old_run)


def test_old_checkpoints_that_are_made_up_are_refused(old_run: Path, tmp_path: Path) -> None:
    contents = torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)
    for place, value in {"settings": 5, "options": [], "spec": {"kind": [1]}, "blueprint": 3}.items():
        bad = {**contents, "arclight": {**contents["arclight"], place: value}}
        torch.save(bad, tmp_path / "bad.ckpt")
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            restore(tmp_path / "bad.ckpt")


def test_the_settings_of_an_old_run() -> None:
    text = "task: {_target_: arclight.training.token_tagger.TokenTagger}\n"
    text += "optimizer: {_target_: arclight.training.muon.Muon, rest_lr: 2}\n"
    assert read_settings(text) == {
        "module": {"_target_": "project.lightning_modules.token_tagger.TokenTagger"},
        "optimizer": {"_target_": "arclight.optim.muon.Muon", "sgd_lr": 2},
    }
