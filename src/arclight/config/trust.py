"""What a config of a stranger may build: one that comes out of a checkpoint or of another run's directory, not from the user.

A `_target_` is code that runs. The user's own configs may name anything. A stranger's may name classes and functions that are
defined in the packages below, nothing private and no methods, some of which read pickles. Left out on purpose is what runs a
stranger's code when asked to: torch.load, torch.hub, transformers.pipeline, CLIPScore of torchmetrics.

A path is where files are read, written and deleted. Those of a checkpoint that is not in outputs/ are left out.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import shlex
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from arclight.config import locations
from arclight.config.known_names import targets
from arclight.errors import InputError

TRUSTED = (
    *("arclight.images", "arclight.text", "arclight.data", "arclight.modules", "arclight.optim", "arclight.callbacks"),
    *("arclight.loggers", "arclight.checkpoint.last_checkpoint", "project", "torch.nn", "torch.optim"),
    *("torchmetrics.classification", "torchmetrics.regression", "torchmetrics.aggregation", "torchmetrics.segmentation"),
    *("torchmetrics.retrieval", "torchmetrics.detection", "torchmetrics.clustering", "torchmetrics.nominal"),
    *("torchvision.models", "torchvision.ops"),
)
AUTO_MODELS = ("AutoModel", "AutoModelForImageClassification", "AutoModelForTokenClassification", "AutoModelForCausalLM")
# Functions that do more than build a model or tensor when given other arguments than these, such as unpickle a file of weights
FACTORIES = {
    "torch.tensor": ("data",),  # class weights of a loss
    "timm.create_model": ("model_name", "pretrained", "num_classes", "in_chans", "drop_rate", "drop_path_rate", "img_size"),
    **{
        f"transformers.{name}.from_pretrained": ("pretrained_model_name_or_path", "revision", "num_labels")
        for name in (*AUTO_MODELS, "AutoModelForSequenceClassification")
    },
}
TAKE_NUMBERS = {"timm.create_model"}  # factories that take any further argument of numbers: sizes of the net
PATH_NAME = re.compile(r"(?:^|_)(?:root|cache|dirs?|directory|folder|paths?|files?)$")
INSTALLED = {"site-packages", "dist-packages"}

_used: set[str] = set()  # packages of the user that configs of this process have built from


def remember(target: str) -> None:
    """Notes that the user's own config builds this: what else its package holds is then the user's choice, too."""
    if is_local(package := target.partition(".")[0]):
        _used.add(package)


def check_name(target: str, path: str, arguments: Mapping[str, Any]) -> None:
    """Raises InputError for a `_target_` of a stranger's config that may not be called; imports nothing."""
    if target in FACTORIES:
        further = {key for key, value in arguments.items() if not (target in TAKE_NUMBERS and is_numeric(value))}
        if wrong := sorted(further - {*FACTORIES[target], "_target_", "_partial_"}):
            raise InputError(f"{path}.{wrong[0]}: the config of a checkpoint may not give {target} this argument", key=path)
        return
    if target in _named_in_conf()[0]:
        return
    if any(part.startswith("_") for part in target.split(".")):
        raise InputError(f"{path}: _target_ '{target}' is private to its package", key=path)
    if target.count(".") != 1 or not target.startswith("torchmetrics."):  # which names metrics at its top; see the definition
        _check_package(target, target, path)


def is_numeric(value: Any) -> bool:
    """Returns whether a value is a number, true or false, or a list of such."""
    return all(map(is_numeric, value)) if isinstance(value, list | tuple) else isinstance(value, bool | int | float)


def check_definition(found: Any, target: str, path: str) -> None:
    """Raises InputError where what a name stands for is defined outside the trusted packages, or is a method."""
    if target in FACTORIES or target in _named_in_conf()[0]:
        return
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    if not isinstance(module, str) or not (inspect.isclass(found) or (callable(found) and name and "." not in name)):
        raise InputError(f"{path}: _target_ '{target}' is neither a class nor a function of a module", key=path)
    _check_package(f"{module}.{name}", target, path)


def _check_package(name: str, target: str, path: str) -> None:
    if any(f"{name}.".startswith(f"{package}.") for package in (*TRUSTED, *_named_in_conf()[1], *_used)):
        return
    shown = f"'{target}'" if name == target else f"'{target}', which is {name},"
    raise InputError(
        f"{path}: _target_ {shown} is outside the packages that the config of a checkpoint may call "
        f"({', '.join((*TRUSTED, *FACTORIES))}); if it is yours, name it as a _target_ in a file under conf/",
        key=path,
    )


def _named_in_conf() -> tuple[frozenset[str], frozenset[str]]:
    return _read_targets(locations.CONF)


@functools.lru_cache
def _read_targets(conf: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the targets that the files of conf/ name, and the user's own packages among them."""
    named = set()
    for file in conf.rglob("*.yaml"):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        named |= {str(node["_target_"]) for _, node in targets(content)}
    return frozenset(named), frozenset(filter(is_local, {name.partition(".")[0] for name in named}))


@functools.lru_cache
def is_local(package: str) -> bool:
    """Returns whether a package is the user's own source: neither installed, nor part of Python, nor named above."""
    if package in {name.partition(".")[0] for name in (*TRUSTED, *FACTORIES)} - {"project"}:
        return False
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    stdlib = Path(sysconfig.get_path("stdlib"))
    return bool(places) and all(
        Path(place).is_absolute() and not Path(place).is_relative_to(stdlib) and not INSTALLED & set(Path(place).parts)
        for place in places
    )


def without_paths(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], key: str
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Returns settings with the user's own default in place of each path.

    Args:
        settings: of a checkpoint.
        defaults: the same node as the user's own conf/ composes it.
        key: where both are in the config, such as "data".

    Returns:
        The settings; key and value of each path that was replaced or left out; the keys of those without a default.
    """
    kept: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    missing: list[str] = []
    for name, value in settings.items():
        own = defaults.get(name)
        if isinstance(value, Mapping):
            kept[name], inner, left_out = without_paths(value, own if isinstance(own, Mapping) else {}, f"{key}.{name}")
            paths |= inner
            missing += left_out
        elif value == own or not is_path(str(name), value):
            kept[name] = value
        else:
            paths[f"{key}.{name}"] = value
            if own is None or own == "???":
                missing.append(f"{key}.{name}")
            else:
                kept[name] = own
    return kept, paths, missing


def is_path(name: str, value: Any) -> bool:
    """Returns whether a setting is, or contains, a path: by its name, or because its text looks like one."""
    if isinstance(value, Mapping):
        return any(is_path(str(key), inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return any(is_path(name, inner) for inner in value)
    return isinstance(value, str) and (PATH_NAME.search(name) is not None or "/" in value or value.startswith(("~", ".")))


def typed(settings: Mapping[str, Any]) -> str:
    """Returns settings as they are typed on a command line."""
    return shlex.join(f"{key}={value}" for key, value in settings.items())
