"""Paths in a checkpoint that is not in outputs/ are not used; the user's own, or typed ones, are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from arclight.checkpoint.contents import Restored
from arclight.config.trust import is_path
from arclight.errors import InputError
from arclight.runs.evaluation import data_settings, is_other_data

FOLDER = {"_target_": "project.data.image_folder.ImageFolder", "root": "victim", "cache": "/home/victim", "storage": "auto"}
CIFAR = {"_target_": "project.data.cifar10.Cifar10", "root": "/srv/victim", "batch_size": 8, "extra": [{"data_dir": "x"}]}


def restored(path: Path, data: str, settings: dict[str, Any]) -> Restored:
    return Restored(None, None, {"data": settings}, data, "cnn", path)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return tmp_path / "stranger.ckpt"


def test_a_run_of_ones_own_keeps_its_paths(tmp_path: Path) -> None:
    for path in (tmp_path / "outputs" / "a" / "b" / "checkpoints" / "best.ckpt", Path("outputs/x/best.ckpt")):
        assert data_settings(restored(path, "image_folder", FOLDER), {"batch_size": 3}) == {**FOLDER, "batch_size": 3}


def test_a_path_without_a_default_must_be_typed(stranger: Path) -> None:
    with pytest.raises(InputError) as caught:
        data_settings(restored(stranger, "image_folder", FOLDER), {})
    assert str(caught.value) == (
        f"{stranger} is not in outputs/, so that paths in it are not used; type those that you trust, or others: "
        "data.root=victim data.cache=/home/victim"
    )


def test_other_paths_are_those_of_conf(stranger: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = data_settings(restored(stranger, "image_folder", FOLDER), {"root": "mine"})
    assert given == {**FOLDER, "root": "mine", "cache": "auto"}
    assert "but those of conf/; if you trust them, type: data.cache=/home/victim" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        own = {key: value for key, value in CIFAR.items() if key != "extra"}
        assert data_settings(restored(stranger, "cifar10", own), {})["root"] == "data/cifar10"
        assert data_settings(restored(stranger, "cifar10", {**own, "root": "data/cifar10"}), {})["root"] == "data/cifar10"
    assert caplog.text.count("data.root=/srv/victim") == 1
    typed = data_settings(restored(stranger, "image_folder", FOLDER), {"root": "victim", "cache": "/home/victim"})
    assert typed == FOLDER


def test_other_data_is_what_lies_elsewhere(tmp_path: Path) -> None:
    settings = {"root": str(tmp_path / "a"), "train": "train.txt"}
    for overrides, expected in (
        ({}, False),
        ({"batch_size": 3}, False),
        ({"root": f"{tmp_path}/b/../a"}, False),
        ({"root": "a"}, False),  # in this directory
        ({"root": "b"}, True),
        ({"train": "other.txt"}, True),
        ({"root": "b", "test": 0.1}, False),
    ):
        assert is_other_data(settings, overrides) is expected, overrides


def test_paths_are_found_at_any_depth(stranger: Path) -> None:
    with pytest.raises(InputError, match=r"type those that you trust, or others: .*data\.extra="):
        data_settings(restored(stranger, "cifar10", CIFAR), {})
    nested = {"train": {"_target_": "torchvision.datasets.FakeData", "root": "victim"}}
    with pytest.raises(InputError, match=r"data\.train\.root=victim"):
        data_settings(restored(stranger, "datasets", nested), {})
    assert data_settings(restored(stranger, "datasets", nested), {"train.root": "mine"})["train"]["root"] == "mine"
    assert nested["train"]["root"] == "victim"
    with pytest.raises(InputError, match=r"data\.train\.root\.x: data\.root=mine has no keys"):
        data_settings(restored(stranger, "datasets", nested), {"train.root": "mine", "train.root.x": "y"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("root", "a", True),
        ("data_dir", "a", True),
        ("cache", "none", True),
        ("words", "../a", True),
        ("words", "~/a", True),
        ("words", ["x", "a/b"], True),
        ("words", "a", False),
        ("batch_size", 3, False),
        ("directed", "a", False),
        ("root", 3, False),
    ],
)
def test_paths_are_known_by_name_or_look(name: str, value: Any, expected: bool) -> None:
    assert is_path(name, value) is expected
