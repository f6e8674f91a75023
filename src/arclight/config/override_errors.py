"""All errors of a command line at once, by names alone: nothing that a config would call is imported.

Hydra stops at the first error. Here every override is checked by itself, in a config composed of those that are right.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from arclight.config import compose, locations
from arclight.config.known_names import HYDRAS_OWN, groups_there, keys_at_top, options_of, unknown_keys, walk
from arclight.config.provenance import Provenance
from arclight.config.renamed import name_of, rename_settings
from arclight.config.signatures import names_taken
from arclight.errors import InputError, closest, join_errors, nearest

# Hydra's own options that have a value after them
WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")


def explain(error: Exception, arguments: Sequence[str]) -> InputError:
    """Returns all errors of a command line, or overrides alone, as one; what Hydra or OmegaConf says where none is found."""
    errors = find_errors(overrides_in(arguments))
    return join(errors, arguments) if errors else InputError(first_words(error))


def join(errors: Sequence[InputError], arguments: Sequence[str]) -> InputError:
    """Returns one error for these of a command line, with where their keys are set and the command that was probably meant."""
    provenance = Provenance(overrides_in(arguments))
    return join_errors([provenance.with_place(error) for error in errors], _command_meant(errors, arguments))


def _command_meant(errors: Sequence[InputError], arguments: Sequence[str]) -> str:
    """Returns the command without these errors; empty where that is not known, or does not compose."""
    corrected = list(arguments)
    for _ in range(2):  # a correction can bring out another error, such as a plus before a key of conf/
        provenance = Provenance(overrides_in(corrected))
        for error in errors:
            setting = provenance.of(error.key) if error.key else None
            right = _correct(setting.override, error) if setting else None
            if setting is None or right is None:
                return ""
            corrected = [right if text == setting.override else text for text in corrected]
        errors = find_errors(overrides_in(corrected))
        if not errors:
            return _command_of(corrected, arguments)
    return ""


def _correct(override: str, error: InputError) -> str | None:
    """Returns an override with what was probably meant; None where that is not known, or the error is about another key."""
    key = name_of(override)
    if not error.suggestions or error.key != key:
        return None
    suggestion = error.suggestions[0]
    if suggestion == key:  # only the plus is wrong
        return override.lstrip("+")
    return override.partition(key)[0] + suggestion if "=" in suggestion else override.replace(key, suggestion, 1)


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """Returns the overrides of a command line, without Hydra's options and their values."""
    values = iter(arguments)
    found = []
    for argument in values:
        if argument in WITH_VALUE:
            next(values, None)
        elif not argument.startswith("-"):
            found.append(argument)
    return found


def find_errors(overrides: Sequence[str]) -> list[InputError]:
    """Returns the errors: unknown groups, options and keys, unreadable values, references to nothing, missing values.

    The suggestions of each are the right key, or the right key and value.
    """
    errors: list[InputError] = []
    chosen: list[str] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            errors.append(InputError(_explain_syntax(text, error)))
            continue
        if group := _group_of(override):
            problem = _check_options(override, text, group)
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
            errors += [*_unresolved(plain, composed), *find_unknown(rename_settings(plain, overrides), overrides)]
    except compose.CONFIG_ERRORS as error:
        errors.append(InputError(first_words(error)))
    return errors


def find_unknown(settings: Mapping[str, Any], overrides: Sequence[str]) -> list[InputError]:
    """Returns an error for each key of a config that nothing takes.

    None where the command chooses a recipe and then another option than the recipe is written for: preflight, which imports the
    targets, knows what does not go together.
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


def _explain_syntax(text: str, error: Exception) -> str:
    if "=" not in text:
        groups = [group for group in groups_there() if text in options_of(group)]
        known = [f"{key}=..." for key in (*groups_there(), *keys_at_top())]
        near = f"Did you mean '{groups[0]}={text}'?" if groups else nearest(f"{text}=...", known)
        return f"{text} is not an override, which has the form KEY=VALUE. {near}"
    return f"{text} cannot be read ({first_words(error)}); a value with special characters must be quoted: \"KEY='VALUE'\""


def _group_of(override: Override) -> str:
    """Returns the group that an override chooses from, also by a name that is nearly that of a group; empty for a key."""
    key = override.key_or_group
    if (locations.CONF / key).is_dir() or key.startswith("hydra/"):
        return key
    if "." in key or key in keys_at_top() or override.type is not OverrideType.CHANGE:
        return ""
    return next((near for near in closest(key, [*groups_there(), *keys_at_top()]) if near in groups_there()), "")


def _check_options(override: Override, text: str, group: str) -> InputError | None:
    if group.startswith("hydra/") or override.type is OverrideType.DEL:
        return None  # packages add to those of Hydra, and Hydra lists them
    key, written, value = name_of(text), override.key_or_group, text.partition("=")[2]
    known, is_known, messages = options_of(group), True, list[str]()
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


def _options_in(override: Override) -> list[str]:
    """Returns the options that an override names: one, those of a list, or those of a multirun."""
    value: Any = override.value()
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
            if not (near := closest(part, known)):
                # what is built from the node may take a key that no file names
                near = closest(part, (names_taken(str(node.get("_target_"))) or ()) if is_last else ())
                added = [f"+{'.'.join([*right, *near])}"] * len(near)
                hint = f"Did you mean '{added[0]}'?" if added else _known_keys(part, known, node, place)
                return InputError(f"{message} {hint}", key=key, suggestions=added)
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
    typed = [shlex.quote(argument) for argument in corrected]
    if sys.argv[0].endswith("__main__.py") and sys.argv[1:][-len(arguments) :] == list(arguments):
        return " ".join(["python -m arclight", *sys.argv[1 : len(sys.argv) - len(arguments)], *typed])
    return " ".join(["python train.py", *typed])


def first_of(text: str) -> str:
    """Returns an override with the first of a multirun's values in place of all."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_sweep_override():
        return text
    value = next(iter(override.sweep_string_iterator())) if override.is_discrete_sweep() else "null"
    return f"{text.partition('=')[0]}={value}"


def first_words(error: Exception) -> str:
    """Returns what an error of Hydra or OmegaConf says, without its trace of keys and files."""
    text = str(error).split("\n    full_key")[0].split("\nConfig search path")[0].split("\nSee https://hydra.cc")[0]
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    return text.strip().strip('"') or type(error).__name__
