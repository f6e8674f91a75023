"""All errors of a command line at once, by names alone: nothing that a config would call is imported.

Hydra stops at the first error. Here every override is checked by itself, in a config composed of those that are right.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from arclight.config import compose, locations
from arclight.config.known_names import (
    HYDRAS_OWN,
    NEEDED,
    groups_there,
    keys_at_top,
    options_of,
    targets,
    unfit_groups,
    unknown_keys,
    walk,
)
from arclight.config.overrides.syntax import first_of, first_words, overrides_in, shell_quoted, sweep_error, syntax_error
from arclight.config.provenance import Provenance
from arclight.config.renamed import name_of, rename_settings
from arclight.config.signatures import annotations_taken, names_taken, plain_type
from arclight.errors import InputError, closest, join_errors, nearest

Check = Callable[[Sequence[str]], Sequence[InputError]]


def explain(error: Exception, arguments: Sequence[str]) -> InputError:
    """Returns all errors of a command line, or overrides alone, as one; what Hydra or OmegaConf says where none is found."""
    errors = find_errors(overrides_in(arguments), is_multirun=bool({"-m", "--multirun"} & {*arguments}))
    return join(errors, arguments) if errors else InputError(first_words(error))


def join(errors: Sequence[InputError], arguments: Sequence[str], check: Check | None = None) -> InputError:
    """Returns one error for these of a command line, with where their keys are set and the command that was probably meant.

    Args:
        errors: at least one.
        arguments: of the command line, or overrides alone.
        check: returns the errors of overrides that have passed `find_errors`; the command is offered only if there are none.
    """
    provenance = Provenance(overrides_in(arguments))
    meant = _arguments_meant(errors, arguments)
    if meant is not None and check is not None and check(overrides_in(meant)):
        meant = None
    places = [provenance.with_place(error) for error in errors]
    return join_errors(places, "" if meant is None else _command_of(meant, arguments))


def _arguments_meant(errors: Sequence[InputError], arguments: Sequence[str]) -> list[str] | None:
    """Returns the arguments without these errors; None where that is not known, or does not compose."""
    corrected = list(arguments)
    for _ in range(2):  # a correction can bring out another error, such as a plus before a key of conf/
        provenance = Provenance(overrides_in(corrected))
        for error in errors:
            setting = provenance.of(error.key) if error.key else None
            right = _correct(setting.override, error) if setting else None
            if setting is None or right is None:
                return None
            corrected = [right if text == setting.override else text for text in corrected]
        errors = find_errors(overrides_in(corrected))
        if not errors:
            return corrected
    return None


def _correct(override: str, error: InputError) -> str | None:
    """Returns an override with what was probably meant; None where that is not known, or the error is about another key."""
    key = name_of(override)
    if not error.suggestions or error.key != key:
        return None
    suggestion = error.suggestions[0]
    if suggestion == key:  # only the plus is wrong
        return override.lstrip("+")
    return override.partition(key)[0] + suggestion if "=" in suggestion else override.replace(key, suggestion, 1)


def find_errors(overrides: Sequence[str], *, is_multirun: bool = True) -> list[InputError]:
    """Returns the errors: unknown groups, options and keys, unreadable values, references to nothing, missing values.

    The suggestions of each are the right key, or the right key and value. Values of the wrong type are reported as far as the
    source of what takes them says so.
    """
    errors: list[InputError] = []
    chosen: list[str] = []
    values: list[Override] = []
    search_path: list[Path] = []
    for text in sorted(overrides, key=lambda text: not text.startswith("hydra.searchpath=")):  # options are looked for there
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            errors.append(syntax_error(text, error))
            continue
        if override.type is OverrideType.DEL and override.key_or_group in NEEDED:
            errors.append(InputError(f"{text}: {override.key_or_group} is needed and must not be left out", key=name_of(text)))
        elif override.is_sweep_override() and not is_multirun:
            errors.append(sweep_error(text))
        elif override.key_or_group == "hydra.searchpath":
            chosen.append(text)
            search_path += _directories(override.value())
        elif group := _group_of(override):
            problem = _check_options(override, text, group, search_path)
            errors += [problem] if problem else []
            right = _correct(text, problem) if problem else text
            chosen += [first_of(right)] if right else []
        else:
            values.append(override)
    try:
        with compose.compose_with_hydra(chosen) as composed:
            plain = _plain(composed)
        found = [_check_key(plain, override) for override in values]
        errors += filter(None, found)
        right_ones = [first_of(str(each.input_line)) for each, problem in zip(values, found, strict=True) if problem is None]
        with compose.compose_with_hydra([*chosen, *right_ones]) as composed:
            plain = _plain(composed)
            settings = rename_settings(plain, overrides)
            errors += [*_unresolved(plain, composed), *unfit_groups(settings), *find_unknown(settings, overrides)]
            errors += _wrong_types(settings, [each.key_or_group for each in values])
    except compose.CONFIG_ERRORS as error:
        errors.append(InputError(first_words(error)))
    return errors


def find_unknown(settings: Mapping[str, Any], overrides: Sequence[str]) -> list[InputError]:
    """Returns an error for each key of a config that nothing takes.

    None where the command chooses a recipe and then another option than the recipe is written for: preflight, which imports the
    targets, unfit_groups, knows what does not go together.
    """
    errors, provenance = unknown_keys(settings), Provenance(overrides)
    chosen = {text.partition("=")[0] for text in overrides}
    for key in [error.key for error in errors if error.key]:
        setting, group = provenance.of(key), key.partition(".")[0]
        if setting and group in chosen and setting.chosen_by.partition("=")[0] not in ("", group):
            return []
    return errors


def _plain(composed: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    return {key: node for key, node in plain.items() if key != "hydra"}


def _wrong_types(settings: Mapping[str, Any], keys: Sequence[str]) -> Iterator[InputError]:
    """Yields an error for each of these keys whose value is of another type than its annotation, if that is a plain one."""
    from arclight.config.instantiate import check_type  # imports pydantic

    for path, node in targets(settings):
        names = [name for name in node if f"{path}.{name}" in keys and not is_interpolated(node[name])]
        annotations = (annotations_taken(str(node["_target_"])) or {}) if names else {}
        for name in names:
            if (expected := plain_type(annotations.get(name))) is not None:
                yield from check_type(node[name], expected, f"{path}.{name}")


def is_interpolated(value: Any) -> bool:
    """Returns whether a value is given elsewhere: by a reference, or not yet."""
    return isinstance(value, str) and ("${" in value or value == "???")


def _group_of(override: Override) -> str:
    """Returns the group that an override chooses from, also by a name that is nearly that of a group; empty for a key."""
    key = override.key_or_group
    if (locations.CONF / key).is_dir() or key.startswith("hydra/"):
        return key
    if "." in key or key in keys_at_top() or override.type is not OverrideType.CHANGE:
        return ""
    return next((near for near in closest(key, [*groups_there(), *keys_at_top()]) if near in groups_there()), "")


def _directories(search_path: Any) -> Iterator[Path]:
    """Yields the directories of hydra.searchpath, of the forms file://DIRECTORY and pkg://PACKAGE."""
    for place in search_path if isinstance(search_path, list) else [search_path]:
        kind, _, name = str(place).partition("://")
        if kind == "pkg":
            with suppress(ImportError, ValueError):  # Hydra reports it
                spec = importlib.util.find_spec(name)
                yield from map(Path, (spec and spec.submodule_search_locations) or ())
        else:
            yield Path(name or kind)


def _check_options(override: Override, text: str, group: str, search_path: Sequence[Path] = ()) -> InputError | None:
    if group.startswith("hydra/") or override.type is OverrideType.DEL:
        return None  # packages add to those of Hydra, and Hydra lists them
    key, written, value = name_of(text), override.key_or_group, text.partition("=")[2]
    known, is_known, messages = options_of(group, search_path), True, list[str]()
    if not override.is_sweep_override() and not _is_choice(override.value()):
        suggestions = [f"{group}=none"] if "none" in known else []
        hint = f"Did you mean '{suggestions[0]}'?" if suggestions else nearest("", known)
        message = f"{text}: {group} chooses a file of conf/{group}/, keys are set as {group}.KEY=VALUE. {hint}"
        return InputError(message, key=key, suggestions=suggestions)
    for option in _options_in(override):
        if option not in known:
            messages.append(f"{text}: conf/{group}/ has no {option}.yaml. {nearest(option, known)}")
            near = closest(option, known)
            is_known = is_known and bool(near)
            value = value.replace(option, near[0]) if near else value
    if written != group:
        meant = f"{group}={value}" if messages and is_known else group
        unknown = f"{text}: the config has no key '{written}'. Did you mean '{meant}'?"
        messages = [unknown, *([] if is_known else messages)]
    suggestions = [f"{key.replace(written, group, 1)}={value}"] if is_known else []
    return InputError("\n".join(messages), key=key, suggestions=suggestions) if messages else None


def _is_choice(value: Any) -> bool:
    """Returns whether the value of an override can choose options of a group: a name, or a list of names."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _options_in(override: Override) -> list[str]:
    """Returns the options that an override names: one, those of a list, or those of a multirun."""
    value: Any = override.value()
    if isinstance(value, Glob):
        return []  # it chooses among those that are there
    if override.is_sweep_override():
        value = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    named = value if isinstance(value, list) else [value]
    return [str(option) for option in named if option is not None and not str(option).startswith("[")]


def _check_key(node: Any, override: Override) -> InputError | None:
    """Returns what is wrong with the key of an override, in a config that is composed without it."""
    text, key = override.input_line, override.key_or_group
    parts, right, message = key.split("."), list[str](), ""
    if parts[0] == "hydra":
        return None
    for part in parts:
        place, is_last = ".".join(right), len(right) == len(parts) - 1
        if isinstance(node, list):
            return None  # Hydra knows which places there are
        if not isinstance(node, Mapping):
            return InputError(f"{text}: {place} is {node!r}, which holds no keys", key=key)
        if part not in node:
            if right and override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and (is_last or "_target_" not in node):
                return None  # `find_unknown` knows what may be added
            known = [name for name in (*node, *(() if right else groups_there())) if name not in HYDRAS_OWN]
            message = message or f"{text}: {place or 'the config'} has no key '{part}'."
            # what is built from the node may take a key that no file names
            taken = (names_taken(str(node.get("_target_"))) or ()) if is_last else ()
            elsewhere = [] if right or not is_last else [found for found in _leaves(node) if found.rpartition(".")[2] == part]
            near = [] if elsewhere else closest(part, [*known, *taken])
            if not near or near[0] not in known:
                places = _leaves(node) if not right and is_last else ()
                by_name = {place.rpartition(".")[2]: place for place in reversed(places)}
                added = elsewhere or [f"+{'.'.join([*right, *near])}"] * len(near)
                added = added or [by_name[name] for name in closest(part, by_name)]
                hint = f"Did you mean '{added[0]}'?" if added else _known_keys(part, known, node, place)
                return InputError(f"{message} {hint}", key=key, suggestions=added[:1])
            part = near[0]
        right.append(part)
        node = node.get(part)
    meant = ".".join(right)
    if message:
        shown = right[-1] if right[:-1] == parts[:-1] else meant
        return InputError(f"{message} Did you mean '{shown}'?", key=key, suggestions=[meant])
    if override.type is OverrideType.ADD:
        return InputError(f"{text}: {key} is in the config already: write it without the +", key=key, suggestions=[key])
    return None


def _leaves(settings: Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys of a config that hold values, then, with a plus, those that the groups take besides."""
    found = [key for key, value in walk(settings) if not isinstance(value, Mapping) and "." in key]
    nodes = [(key, node) for key, node in targets(settings) if "." not in key]
    return found + [
        f"+{key}.{name}" for key, node in nodes for name in names_taken(str(node["_target_"])) or () if name not in node
    ]


def _known_keys(part: str, known: Sequence[str], node: Mapping[str, Any], place: str) -> str:
    """Returns a sentence on the keys of a node; those that its class takes where no file names any."""
    if place == "data" and not node:
        return "With data=none the LightningModule has its own loaders: set its keys, or choose data=..."
    names = known or names_taken(str(node.get("_target_"))) or ()
    return nearest(part, dict.fromkeys(names)) if names else "It takes no keys."


def _unresolved(plain: Mapping[str, Any], composed: DictConfig) -> Iterator[InputError]:
    """Yields what must be given, and values that refer to what is not there."""
    for key, value in walk(plain):
        if value == "???":
            yield InputError(f"{key} must be given: add {key}=... to the command")
        elif isinstance(value, str) and "${" in value:
            try:
                OmegaConf.select(composed, key)
            except OmegaConfBaseException as error:
                hint = "; name a key that is there as ${GROUP.KEY}" if isinstance(error, InterpolationKeyError) else ""
                yield InputError(f"{key}={value}: {first_words(error)}{hint}")


def _command_of(corrected: Sequence[str], arguments: Sequence[str]) -> str:
    """Returns how the corrected arguments are typed: after the command that this process was started with, else train.py."""
    typed = [shell_quoted(argument) for argument in corrected]
    if sys.argv[0].endswith("__main__.py") and sys.argv[1:][-len(arguments) :] == list(arguments):
        return " ".join(["python -m arclight", *sys.argv[1 : len(sys.argv) - len(arguments)], *typed])
    return " ".join(["python train.py", *typed])
