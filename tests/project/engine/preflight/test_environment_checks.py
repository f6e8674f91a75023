"""What a run lacks on this machine; tests/end_to_end/test_wrong_inputs.py has the table."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arclight.config.compose import compose
from arclight.preflight import environment_checks
from arclight.preflight.environment_checks import check_environment, pretrained_bytes
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(*overrides: str) -> list[str]:
    return [str(error) for error in check_environment(compose([*overrides]))]


def test_nothing_is_lacking(bert_folder: Path) -> None:
    assert found(*TINY_IMAGES) == []
    assert found(*TINY_TEXT, f"model.checkpoint={bert_folder}") == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=image_folder", "data.root=pctures"], r"data.root=pctures: no such directory. Did you mean '.*pictures'\?"),
        (
            ["data=cifar10", "data.root=file/cifar"],
            "data.root=file/cifar: nothing can be downloaded to there, because .*file is",
        ),
        (["data=cifar10", "data.root=new", "+data.download=false"], "data.root=new: no such directory"),
    ],
)
def test_what_is_not_there(overrides: list[str], told: str) -> None:
    Path("pictures").mkdir()
    Path("file").touch()
    with pytest.raises(AssertionError, match=told):
        assert not "\n".join(found(*overrides))


@pytest.mark.parametrize(
    ("override", "name", "module", "package"),
    [
        ("logger=mlflow", "mlflow", "mlflow", "mlflow"),
        ("logger=all", "mlflow", "mlflow", "mlflow"),
        ("+logger.mine._target_=lightning.pytorch.loggers.CometLogger", "mine", "comet_ml", "comet-ml"),
    ],
)
def test_a_logger_whose_package_is_not_installed(
    override: str, name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    assert found(*TINY_IMAGES, override) == [
        f"logger.{name}: {module} is not installed. Try: pip install {package}; or leave this logger out: ~logger.{name}"
    ]
    assert found(*TINY_IMAGES, override, f"~logger.{name}") == []


@pytest.mark.parametrize(("free", "told", "warned"), [(10**12, False, False), (10**8, False, True), (10**5, True, False)])
def test_room_on_the_disk(
    free: int, told: bool, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=free))
    with caplog.at_level(logging.WARNING, logger=environment_checks.__name__):
        errors = found(*TINY_IMAGES)
    assert [f"{tmp_path} has 0 MB free, and a checkpoint of this run takes 1 MB or more" in each for each in errors] == [
        True
    ] * told
    assert ("100 MB free" in caplog.text) == warned


def test_pretrained_weights_tell_how_much_room_is_needed(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "project.models.bert_tagger.BertTagger"}
    settings: dict[str, Any] = {"model": {**node, "checkpoint": str(bert_folder)}}
    assert pretrained_bytes(settings) == (bert_folder / "model.safetensors").stat().st_size
    assert pretrained_bytes({"model": {**node, "checkpoint": "bert-base-cased"}}) == 0
    assert pretrained_bytes({"model": {**node, "checkpoint": None}}) is None
    assert pretrained_bytes({"model": {"_target_": "project.models.cnn.Cnn"}}) is None


def test_a_run_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run_config = replace(compose(TINY_IMAGES), folder=tmp_path / "file" / "run")
    assert "the run cannot be written, because" in str(check_environment(run_config)[0])
