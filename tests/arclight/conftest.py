"""A conf/ of the engine's groups alone, to which tests add options of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from arclight.config import locations

ENGINE_GROUPS = (
    *("callbacks", "checkpoint", "hardware", "hydra", "logger", "optimizer", "precision", "scheduler", "strategy", "trainer"),
)
MakeConf = Callable[..., Path]


@pytest.fixture
def make_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConf:
    """Returns a function that makes conf/ of options by name, in the directory that the test works in."""

    def make(options: Mapping[str, Mapping[str, Any]], *, data: str, model: str) -> Path:
        conf = tmp_path / "conf"
        for group in ENGINE_GROUPS:
            shutil.copytree(locations.CONF / group, conf / group)
        for group in ("experiment", "debug", "local", "data", "model", "module"):
            (conf / group).mkdir(parents=True)
        shutil.copy(locations.CONF / "data" / "none.yaml", conf / "data")
        for name, settings in options.items():
            (conf / f"{name}.yaml").write_text(yaml_of(settings))
        text = (locations.CONF / "train.yaml").read_text()
        (conf / "train.yaml").write_text(
            text.replace("data: cifar10", f"data: {data}").replace("model: cnn", f"model: {model}")
        )
        monkeypatch.setattr(locations, "CONF", conf)
        monkeypatch.chdir(tmp_path)
        return conf

    return make


def yaml_of(settings: Mapping[str, Any]) -> str:
    """Returns the text of an option's file; values are written as JSON, which is YAML, too."""
    defaults = "".join(f"  - {entry}\n" for entry in settings.get("defaults", []))
    values = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items() if key != "defaults")
    return (f"defaults:\n{defaults}" if defaults else "") + values
