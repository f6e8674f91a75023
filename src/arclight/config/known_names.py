"""The names that conf/ offers, and the keys of a composed config that are none of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from arclight.config import locations
from arclight.config.signatures import names_taken
from arclight.errors import InputError, closest, first_line, modules_of, nearest

# what the engine reads of every config; the data may be left out
START = ("seed", "name", "resume", "resume_with_changes", "preflight")
NEEDED = (*START, "model", "optimizer", "scheduler", "trainer", "hardware", "checkpoint", "callbacks", "logger")
FOR_ALL = ("experiment", "debug", "sweep", "local")  # groups whose files set keys of other groups
HYDRAS_OWN = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def unknown_keys(settings: Mapping[str, Any]) -> list[InputError]:
    """Returns an error for each key of a composed config that nothing takes, whichever file or override sets it."""
    known = [key for key in (*keys_at_top(), *groups_there()) if key not in FOR_ALL]
    errors = []
    for key in settings:
        if key in FOR_ALL:
            files = "conf/local/default.yaml" if key == "local" else f"the chosen file of conf/{key}/"
            errors.append(
                InputError(f"{files}: its keys do not reach the config; its first line must be '# @package _global_'")
            )
        elif key not in known:
            message = f"{key}: the config has no key '{key}'. {nearest(str(key), known)}"
            errors.append(InputError(message, key=str(key), suggestions=closest(str(key), known)))
    for path, node in targets(settings):
        taken = names_taken(str(node["_target_"]))
        if taken is not None:
            name = str(node["_target_"]).rpartition(".")[2]
            errors += [unknown_argument(path, key, name, taken) for key in node if key not in (*taken, *HYDRAS_OWN)]
    return errors


def unfit_groups(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for each group or key that is left out and needed, and each group that is set to a value."""
    groups = groups_there()
    for key in NEEDED:
        none = f"; {key}=none chooses nothing" if key in groups and "none" in options_of(key) else ""
        if key not in settings:
            yield InputError(f"{key} is needed and must not be left out{none}", key=key)
    for key in (*NEEDED, "data", "module"):
        if key in groups and key in settings and not isinstance(settings[key], Mapping):
            hint = f"choose one of conf/{key}/ by {key}=OPTION, or set {key}.KEY=VALUE"
            yield InputError(f"{key}={settings[key]} must hold keys, not a value; {hint}", key=key)


def unknown_argument(path: str, key: Any, name: str, taken: Iterable[str]) -> InputError:
    """Returns the error for an argument that the class or function `name`, configured at `path`, does not take."""
    names = list(taken)
    message = f"{path}.{key}: {name} takes no '{key}'. {nearest(str(key), names)}"
    return InputError(message, key=f"{path}.{key}", suggestions=[f"{path}.{near}" for near in closest(str(key), names)])


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


def options_of(group: str, search_path: Sequence[Path] = ()) -> list[str]:
    """Returns the options of a group, in conf/ and in further directories."""
    return sorted({file.stem for root in (locations.CONF, *search_path) for file in (root / group).glob("*.yaml")})


def why_not_composed(error: Exception) -> str:
    """Returns what is wrong with the files of conf/ that Hydra could not compose, which it does not say itself."""
    wrong = list(unreadable_files())
    if isinstance(error, RecursionError):
        wrong.append("files of conf/ choose each other in their defaults lists without end: look at the file that you chose")
    return "\n".join(wrong) or f"conf/ cannot be composed: {type(error).__name__}: {first_line(error)}"


def message_of_hydra(error: Exception) -> str:
    """Returns what an error says that Hydra raised before a run had begun; empty for an error of other code, which is a bug."""
    called = list(itertools.dropwhile(lambda name: not name.startswith("hydra."), modules_of(error)))  # from Hydra on
    if not called or any(name.startswith(("arclight.", "project.")) for name in called):
        return ""
    if "hydra._internal.config_loader_impl" in called:
        return why_not_composed(error)
    return f"{type(error).__name__}: {first_line(error)}"  # of an option of Hydra, a launcher, a directory


def unreadable_files() -> Iterator[str]:
    """Yields what is wrong with the files of conf/ that hold no keys."""
    for file in sorted(locations.CONF.rglob("*.yaml")):
        name = f"conf/{file.relative_to(locations.CONF)}"
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            yield f"{name} is not UTF-8 (byte {error.start}): save it with that encoding"
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            yield f"{name} cannot be read: {first_line(error)}"
        else:
            if not isinstance(content, dict | None):
                yield f"{name} must hold keys and values, and holds a {type(content).__name__}"
