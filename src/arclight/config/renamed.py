"""Old names of groups, options, keys and targets, which conf/renamed.yaml lists, replaced by the present ones."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from arclight.config import locations
from arclight.config.signatures import names_taken
from arclight.distributed.environment import detect_launch

# sign, group or first part of the key, rest, value
OVERRIDE = re.compile(r"([+~]*)([\w/]+)((?:[.@][^=]*)?)(=?)(.*)", re.DOTALL)


def rename_arguments(arguments: list[str]) -> None:
    """Replaces old names in a command line in place, and reports them in one line on stderr."""
    arguments[:] = rename_overrides(arguments, is_reported=True)


def rename_overrides(overrides: Sequence[str], *, is_reported: bool = False) -> list[str]:
    """Returns the overrides with present names; options of Hydra, which begin with a dash, stay as they are."""
    renamed = [text if text.startswith("-") else _rename_group(text) for text in overrides]
    if any(name_of(text) in _table("keys") for text in renamed):
        config = _compose_choices(renamed)
        renamed = [text if text.startswith("-") else _rename_key(text, config) for text in renamed]
    if is_reported:
        report((old, new) for old, new in zip(overrides, renamed, strict=True) if old != new)
    return renamed


def rename_settings(settings: Mapping[str, Any], overrides: Sequence[str] = (), *, is_reported: bool = False) -> dict[str, Any]:
    """Returns settings with present names of groups, targets and keys.

    Args:
        settings: a composed config, or that of an old run or checkpoint.
        overrides: what the user typed; its values win over those that a file sets by an old name.
        is_reported: whether old names are reported on stderr.
    """
    renamed: dict[str, Any] = {key: _rename_targets(value) for key, value in settings.items() if key not in _table("groups")}
    found = []
    for group in settings.keys() & _table("groups").keys():
        new, value = _table("groups")[group], _rename_targets(settings[group])
        present = renamed.get(new)
        renamed[new] = _merge(present, value, new, overrides) if isinstance(present, dict) else value
        found.append((f"{group}:", f"{new}:"))
    for old, new in _table("keys").items():
        group, _, name = old.partition(".")
        node, new_name = renamed.get(group), new.partition(".")[2]
        if isinstance(node, dict) and name in node and _is_renamed(node, name, new_name):
            value = node.pop(name)
            if new_name not in node or not _is_typed(new, overrides):
                node[new_name] = value
            found.append((old, new))
    if is_reported:
        report(found)
    return renamed


def rename_target(target: str) -> str:
    """Returns the present name of a class, of a function, or of what lies in a module that was renamed."""
    for old, new in _table("targets").items():
        if target == old or target.startswith(f"{old}."):
            return new + target.removeprefix(old)
    return target


def rename_checkpoint(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what version 0.1 put into a checkpoint, in the present form."""
    renamed = {key: contents[key] for key in ("settings", "options", "blueprint") if key in contents}
    if isinstance(settings := renamed.get("settings"), Mapping):
        renamed["settings"] = rename_settings(settings)
    if isinstance(options := renamed.get("options"), Mapping):
        renamed["options"] = {key: _table("options").get(key, {}).get(option, option) for key, option in options.items()}
    if isinstance(info := contents.get("spec"), Mapping):
        renamed["data_info"] = {**info, "kind": rename_target(str(info.get("kind")))}
    return renamed


def report(renamed: Iterable[tuple[str, str]]) -> None:
    """Prints one line on stderr that names what is called otherwise now, if anything is."""
    pairs = [f"{old} is now {new}" for old, new in renamed]
    if pairs and not detect_launch(os.environ).rank:
        sys.stderr.write(f"renamed: {', '.join(pairs)} (the old names work until version 0.3)\n")


def _table(name: str) -> dict[str, Any]:
    return locations.read_conf("renamed.yaml").get(name) or {}


def name_of(override: str) -> str:
    """Returns the key or group of an override, without its sign."""
    return override.lstrip("+~").partition("=")[0]


def _rename_group(override: str) -> str:
    found = OVERRIDE.fullmatch(override)
    if found is None:
        return override
    sign, group, rest, equals, value = map(str, found.groups())
    group = _table("groups").get(group, group)
    options = _table("options").get(group, {})
    if options and not rest.startswith("."):
        value = re.sub(r"[\w-]+", lambda word: str(options.get(word[0], word[0])), value)
    if rest.endswith("_target_"):
        value = rename_target(value)
    return f"{sign}{group}{rest}{equals}{value}"


def _rename_key(override: str, config: Mapping[str, Any] | None) -> str:
    old = name_of(override)
    new = _table("keys").get(old)
    if new is None:
        return override
    node = (config or {}).get(old.partition(".")[0])
    is_renamed = not isinstance(node, Mapping) or _is_renamed(node, old.partition(".")[2], new.partition(".")[2])
    return override.replace(old, new, 1) if is_renamed else override


def _compose_choices(overrides: Sequence[str]) -> Mapping[str, Any] | None:
    """Returns the config of the options that these overrides choose; None where it does not compose."""
    from arclight.config import compose  # they compose by means of this module
    from arclight.config.overrides import syntax

    chosen = [text for text in syntax.overrides_in(overrides) if "." not in name_of(text)]
    try:
        with compose.compose_with_hydra([syntax.first_of(text) for text in chosen]) as config:
            plain = OmegaConf.to_container(config, resolve=False)
            return plain if isinstance(plain, dict) else None  # type: ignore[return-value]  # its keys are text
    except Exception:  # whatever is wrong is reported when the whole command is composed
        return None


def _is_renamed(node: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether what is configured here takes the new name and not the old one."""
    taken = names_taken(rename_target(str(node["_target_"]))) if "_target_" in node else (new,)
    return taken is not None and new in taken and old not in taken


def _rename_targets(value: Any) -> Any:
    if isinstance(value, Mapping):
        renamed = {key: _rename_targets(inner) for key, inner in value.items()}
        if isinstance(target := renamed.get("_target_"), str):
            renamed["_target_"] = rename_target(target)
        return renamed
    return [_rename_targets(inner) for inner in value] if isinstance(value, list) else value


def _is_typed(key: str, overrides: Sequence[str]) -> bool:
    typed = [name_of(text) for text in overrides]
    return any(key == name or ("." in name and key.startswith(f"{name}.")) for name in typed)


def _merge(present: dict[str, Any], old: Any, path: str, overrides: Sequence[str]) -> Any:
    """Returns what a file set by an old name over what is set by the new one; what the user typed stays."""
    if not isinstance(old, Mapping):
        return present
    merged = dict(present)
    for key, value in old.items():
        place = f"{path}.{key}"
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, place, overrides)
        elif key not in merged or not _is_typed(place, overrides):
            merged[key] = value
    return merged
