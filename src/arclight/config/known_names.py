"""The names that conf/ offers, and the keys of a composed config that are none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from arclight.config import locations
from arclight.config.signatures import names_taken
from arclight.errors import InputError, closest, nearest

NO_PACKAGE = "conf/local/default.yaml: its keys do not reach the config; its first line must be '# @package _global_'"
HYDRAS_OWN = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def unknown_keys(settings: Mapping[str, Any]) -> list[InputError]:
    """Returns an error for each key of a composed config that nothing takes, whichever file or override sets it."""
    known = [*keys_at_top(), *groups_there()]
    errors = []
    for key in settings:
        message = NO_PACKAGE if key == "local" else f"{key}: the config has no key '{key}'. {nearest(key, known)}"
        if key not in known:
            errors.append(InputError(message, key=None if key == "local" else key, suggestions=closest(key, known)))
    for path, node in targets(settings):
        taken = names_taken(str(node["_target_"]))
        if taken is not None:
            name = str(node["_target_"]).rpartition(".")[2]
            errors += [unknown_argument(path, key, name, taken) for key in node if key not in (*taken, *HYDRAS_OWN)]
    return errors


def unknown_argument(path: str, key: str, name: str, taken: Iterable[str]) -> InputError:
    """Returns the error for an argument that the class or function `name`, configured at `path`, does not take."""
    names = list(taken)
    message = f"{path}.{key}: {name} takes no '{key}'. {nearest(key, names)}"
    return InputError(message, key=f"{path}.{key}", suggestions=[f"{path}.{near}" for near in closest(key, names)])


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the nodes of a config from which something is built, by dotted key, also inside lists."""
    for place, inner in walk(node, path):
        if isinstance(inner, Mapping) and "_target_" in inner:
            yield place, inner


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every node and value of nested settings by dotted key, also inside lists."""
    yield path, node
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ():
        yield from walk(value, f"{path}.{key}" if path else str(key))


def keys_at_top() -> list[str]:
    """Returns the keys that conf/train.yaml itself sets."""
    return [key for key in locations.read_conf("train.yaml") if key not in ("defaults", "hydra")]


def groups_there() -> list[str]:
    """Returns the groups of conf/ that a command chooses from."""
    return sorted(path.name for path in locations.CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "local"))


def options_of(group: str) -> list[str]:
    """Returns the options of a group."""
    return sorted(file.stem for file in (locations.CONF / group).glob("*.yaml"))
