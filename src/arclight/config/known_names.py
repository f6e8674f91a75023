"""The names that conf/ offers, and the keys of a composed config that are none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig

from arclight.config import locations
from arclight.config.signatures import names_taken
from arclight.errors import nearest

HEADLESS = "conf/local/default.yaml: its keys do not reach the config; its first line must be '# @package _global_'"
HYDRAS_OWN = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
NOT_NAMES = (*HYDRAS_OWN, "hydra")


def unknown_keys(settings: Mapping[str, Any]) -> list[str]:
    """Keys of a composed config that nothing takes, whichever file or override set them."""
    known = [*keys_at_top(), *groups_there()]
    told = [
        HEADLESS if key == "local" else f"{key}: the config has no key '{key}'. {nearest(key, known)}"
        for key in settings
        if key not in known
    ]
    for path, node in targets(settings):
        taken = names_taken(str(node["_target_"]))
        name = str(node["_target_"]).rpartition(".")[2]
        told += [
            f"{path}.{key}: {name} takes no '{key}'. {nearest(key, taken)}"
            for key in node
            if taken is not None and key not in (*taken, *HYDRAS_OWN)
        ]
    return told


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes of a config from which something is built, by dotted key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))


def keys_at_top() -> list[str]:
    """The keys that conf/train.yaml itself sets."""
    settings = yaml.safe_load((locations.CONF / "train.yaml").read_text(encoding="utf-8"))
    return [key for key in settings if key not in ("defaults", "hydra")]


def groups_there() -> list[str]:
    """The groups of conf/ that a command chooses from."""
    return sorted(
        folder.name for folder in locations.CONF.iterdir() if folder.is_dir() and folder.name not in ("hydra", "local")
    )


def options_of(group: str) -> list[str]:
    """The options of a group."""
    return sorted(file.stem for file in (locations.CONF / group).glob("*.yaml"))


def names_there(node: DictConfig) -> list[str]:
    """The keys of a node that a user sets; at the top, the groups, too."""
    names = [str(name) for name in node if name not in NOT_NAMES]
    return [*names, *(group for group in groups_there() if group not in names)] if "hydra" in node else names
