"""Overrides as users of other templates type them, which conf/other_templates.yaml lists, replaced by those of this project.

A name of that table applies only where this project has none of that name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from arclight.config import locations
from arclight.config.known_names import keys_at_top
from arclight.config.overrides.syntax import first_of, overrides_in, read_as_text
from arclight.config.redaction import hide_in_override
from arclight.config.renamed import name_of
from arclight.config.signatures import names_taken
from arclight.distributed.environment import detect_launch
from arclight.errors import InputError

WORD = re.compile(r"[\w.-]+")


class Typed(NamedTuple):
    """An override in its parts."""

    sign: str
    key: str
    value: str

    @classmethod
    def parse(cls, override: str) -> Typed:
        """Returns the parts of an override, which has a value."""
        bare = override.lstrip("+~")
        key, _, value = bare.partition("=")
        return cls(override[: len(override) - len(bare)], key, value)

    def __str__(self) -> str:
        return f"{self.sign}{self.key}={self.value}"

    @property
    def row(self) -> str:
        """How a table names this key with this value."""
        return f"{self.key}={self.value.lower()}"


def translate_arguments(arguments: list[str]) -> None:
    """Translates the overrides of a command line in place, as `translate_overrides` does."""
    arguments[1:] = translate_overrides(arguments[1:])


def translate_overrides(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides by the names of this project; one line on stderr reports what is replaced.

    `+KEY=VALUE` of a key that the config has becomes KEY=VALUE, and a text that Hydra's grammar cannot read, such as ~/data, is
    quoted; neither is reported.

    Raises:
        InputError: for overrides that have no counterpart, with what to type instead, and for all other errors.
    """
    overrides = [read_as_text(text) for text in overrides]
    typed_keys = {name_of(text) for text in overrides if "=" in text}
    pairs = [(text, list(_translate_choice(text, typed_keys))) for text in overrides]
    flat = [new for _, translated in pairs for new in translated]
    if any(_may_be_translated(text) for text in flat):
        config = _compose_options(flat)
        pairs = [(text, [new for one in parts for new in _translate_key(one, config)]) for text, parts in pairs]
        _raise_messages(pairs, config, overrides)
    report(
        (text, " ".join(parts)) for text, parts in pairs if parts and [text.lstrip("+")] != [new.lstrip("+") for new in parts]
    )
    return [new for _, parts in pairs for new in parts]


def report(translated: Iterable[tuple[str, str]]) -> None:
    """Prints one line on stderr that says as what overrides are read, if any is read as another."""
    pairs = [f"{hide_in_override(old)} is read as {' '.join(map(hide_in_override, new.split(' ')))}" for old, new in translated]
    if pairs and not detect_launch(os.environ).rank:
        sys.stderr.write(f"{'; '.join(pairs)}\n")


def _table(name: str) -> dict[str, Any]:
    return locations.read_conf("other_templates.yaml").get(name) or {}


def _is_value(override: str) -> bool:
    """Returns whether an argument sets a key or chooses an option: no option of Hydra, no deletion."""
    return "=" in override and not override.startswith(("-", "~"))


def _is_group(key: str) -> bool:
    return bool(key) and (locations.CONF / key).is_dir()


def _translate_choice(override: str, typed_keys: set[str]) -> Iterator[str]:
    """Yields an override with the group and the options that this project has for those typed."""
    if not _is_value(override):
        yield override
        return
    typed = Typed.parse(override)
    group, dot, rest = typed.key.partition(".")
    if not _is_group(group) and group not in keys_at_top():
        group = _table("groups").get(group, group)
    typed = typed._replace(key=f"{group}{dot}{rest}")
    if not _is_group(typed.key):
        yield str(typed)
        return
    if _has_option(group, typed.value) or (found := _table("overrides").get(typed.row)) is None:
        options = _table("options").get(group, {})
        names = WORD.sub(lambda word: word[0] if _has_option(group, word[0]) else options.get(word[0], word[0]), typed.value)
        is_plus_for_nothing = typed.sign == "+" and group in _groups_with_default()
        yield str(Typed("" if is_plus_for_nothing else typed.sign, group, names))
        return
    yield from (new for new in found if name_of(new) == typed.key or name_of(new) not in typed_keys)


def _has_option(group: str, name: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+", name)) and (locations.CONF / group / f"{name}.yaml").is_file()


def _translate_key(override: str, config: Mapping[str, Any]) -> list[str]:
    """Returns an override with the key that this project has for the one typed."""
    if not _is_value(override):
        return [override]
    typed = Typed.parse(override)
    if _has(config, typed.key):
        is_key = not _is_group(typed.key) and not typed.key.startswith("hydra")
        return [str(typed._replace(sign=""))] if typed.sign == "+" and is_key else [override]
    if (row := _table("overrides").get(typed.row)) is not None:
        return [str(new) for new in row]
    if not (candidates := _candidates(typed.key)):
        return [override]
    if _takes(config, typed.key):
        return [str(typed._replace(sign="+"))]
    if found := next((key for key in candidates if _has(config, key) or _takes(config, key)), None):
        return [str(typed._replace(sign="" if _has(config, found) else "+", key=found))]
    return [override] if _message_for(override, config) else [str(typed._replace(key=candidates[0]))]


def _candidates(key: str) -> list[str]:
    """Returns the keys of this project that the table names for a key, best first."""
    for old, news in _table("keys").items():
        if key == old:
            return list(news)
        if old.endswith(".") and key.startswith(old):
            return [new + key.removeprefix(old) for new in news]
    return []


def _raise_messages(pairs: Sequence[tuple[str, Sequence[str]]], config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raises InputError with the messages of the table for these overrides, and all other errors of the command."""
    from arclight.config.overrides.errors import find_errors, join  # compose by means of this module

    messages = {text: message for text, parts in pairs for new in parts if (message := _message_for(new, config))}
    if messages:
        errors = [InputError(f"{text}: {message}", key=name_of(text)) for text, message in messages.items()]
        others = [new for text, parts in pairs if text not in messages for new in parts]
        raise join([*errors, *find_errors(overrides_in(others))], overrides)


def _message_for(override: str, config: Mapping[str, Any]) -> str:
    """Returns what the table says about an override that has no counterpart; empty where it says nothing."""
    if not _is_value(override):
        return ""
    typed, messages = Typed.parse(override), _table("messages")
    names = [name for name in messages if typed.row == name or f"{typed.key}.".startswith(f"{name}.")]
    name = max(names, key=len, default="")
    is_there = _has(config, typed.key) or _has(config, name.partition("=")[0])
    return "" if not name or is_there else str(messages[name])


def _may_be_translated(override: str) -> bool:
    """Returns whether a table names the key of an override, or it has one plus."""
    if not _is_value(override):
        return False
    typed = Typed.parse(override)
    if typed.sign == "+" or typed.row in _table("overrides") or _candidates(typed.key):
        return not typed.key.startswith("hydra")
    return any(typed.row == name or f"{typed.key}.".startswith(f"{name}.") for name in _table("messages"))


def _compose_options(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Returns the config of the options that these overrides choose, else of the default ones; empty if it does not compose."""
    from arclight.config import compose  # composes by means of this module

    chosen = [text for text in overrides if _is_value(text) and _is_group(name_of(text))]
    for attempt in (chosen, []):
        try:
            with compose.compose_with_hydra([first_of(text) for text in attempt]) as config:
                plain = OmegaConf.to_container(config, resolve=False)
                return plain if isinstance(plain, dict) else {}  # type: ignore[return-value]  # its keys are text
        except Exception:  # noqa: S112  # whatever is wrong is reported when the whole command is composed
            continue
    return {}


def _has(config: Any, key: str) -> bool:
    """Returns whether a config has a dotted key."""
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _takes(config: Any, key: str) -> bool:
    """Returns whether what a config builds takes this argument, which no file sets."""
    place, _, name = key.rpartition(".")
    for part in place.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    target = config.get("_target_") if isinstance(config, Mapping) else None
    return target is not None and name in (names_taken(str(target)) or ())


def _groups_with_default() -> set[str]:
    """Returns the groups from which conf/train.yaml chooses an option already."""
    entries = locations.read_conf("train.yaml").get("defaults", [])
    return {str(name) for entry in entries if isinstance(entry, Mapping) for name in entry}
