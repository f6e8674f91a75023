"""Every option of every config group composes, and every key in it is a parameter of its target."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from arclight.config.compose import compose
from arclight.config.instantiate import INSTALL, parameters_of
from arclight.config.locations import CONF

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "local"))
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
NEEDED = {
    ("data", "image_folder"): ["data.root=x"],
    ("data", "conll_files"): ["data.root=x"],
    ("callbacks", "distillation"): ["callbacks.distillation.teacher=x"],
    ("data", "datasets"): ["data.train={_target_: torch.utils.data.TensorDataset, _partial_: true}"],
}


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@functools.cache
def settings_of(group: str, option: str) -> dict[str, Any]:
    return compose([f"{group}={option}", *NEEDED.get((group, option), [])]).settings


def is_installed(target: str) -> bool:
    return importlib.util.find_spec(target.partition(".")[0]) is not None


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_key_is_a_parameter(group: str, option: str) -> None:
    settings = settings_of(group, option)
    for path, node in targets(settings):
        if str(node["_target_"]).partition(".")[0] in INSTALL and not is_installed(node["_target_"]):
            continue
        keys = set(node) - {"_target_", "_partial_"}
        dead = keys - set(parameters_of(str(node["_target_"]), path))
        assert not dead, f"{path}: {sorted(dead)} in YAML, but {node['_target_']} does not take them"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_top_level_keys(group: str, option: str) -> None:
    """A composed config has exactly the top-level keys that the engine reads."""
    settings = settings_of(group, option)
    known = {
        "seed",
        "test",
        "tags",
        "monitor",
        "monitor_mode",
        "name",
        "data",
        "data_root",
        "model",
        "module",
        "optimizer",
        "scheduler",
        "trainer",
        "hardware",
        "callbacks",
        "checkpoint",
        "logger",
    }
    assert set(settings) == known


def test_recipes_start_with_their_command() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        assert f"# python train.py experiment={path.stem}" in path.read_text(), path


@pytest.mark.parametrize("option", [f"{group}={option}" for group, option in OPTIONS if group not in ("experiment", "debug")])
def test_default_in_yaml_equals_default_in_code(option: str) -> None:
    """Python callers get the defaults of the command line: where YAML and code both have one, they are equal."""
    group, _, name = option.partition("=")
    settings = settings_of(group, name)
    for path, node in targets(settings):
        if option == "checkpoint=epoch":  # an override of another option
            continue
        # two models of one class differ only in YAML; nested targets belong to the file around them
        if (
            str(node["_target_"]).startswith(("arclight.", "project."))
            and path != "model"
            and path.count(".") == path.startswith("logger.")
        ):
            parameters = parameters_of(str(node["_target_"]), path)
            defaults = {key: parameters[key].default for key in node if key in parameters}
            for key, default in defaults.items():
                value = tuple(node[key]) if isinstance(node[key], list) else node[key]
                if default is not parameters[key].empty and not isinstance(value, dict):
                    assert value == default, f"{path}.{key} is {value} in YAML and {default} in {node['_target_']}"
