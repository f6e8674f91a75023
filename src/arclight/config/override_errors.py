"""All errors of a command line at once, by names alone: nothing that a config would call is imported.

Hydra stops at the first error. Here every override is checked by itself, in a config composed of those that are right.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from arclight.config import compose, locations
from arclight.config.known_names import HYDRAS_OWN, groups_there, keys_at_top, options_of, unknown_argument
from arclight.config.signatures import names_taken
from arclight.errors import InputError, closest, join_errors, nearest

SIGNS = {OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++", OverrideType.DEL: "~"}
# Hydra's own options that have a value after them
WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")


@dataclass(frozen=True)
class OverrideError:
    """What is wrong with an override (or with a key that no override sets), and the override that was probably meant."""

    message: str
    override: str = ""
    meant: str | None = None


def explain(error: Exception, arguments: Sequence[str]) -> InputError:
    """Returns all errors of a command line as one; what Hydra says where none is found.

    Args:
        error: of Hydra or OmegaConf.
        arguments: the command line, or overrides alone.
    """
    errors = find_errors(overrides_in(arguments))
    if not errors:
        return InputError(first_words(error))
    return join_errors([InputError(each.message) for each in errors], command_meant(arguments, errors, arguments))


def command_meant(corrected: Sequence[str], errors: Sequence[OverrideError], arguments: Sequence[str]) -> str:
    """Returns the command without these errors of its overrides; empty where that is not known, or does not compose.

    Args:
        corrected: the command line or overrides alone, as far as they are corrected.
        errors: of these.
        arguments: the command line as it was typed.
    """
    if any(each.meant is None for each in errors):
        return ""
    meant = {each.override: str(each.meant) for each in errors}
    corrected = [meant.get(text, text) for text in corrected]
    return "" if errors and find_errors(overrides_in(corrected)) else command_of(corrected, arguments)


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


def find_errors(overrides: Sequence[str]) -> list[OverrideError]:
    """Returns the errors: unknown groups, options and keys, unreadable values, references to nothing, missing values."""
    errors: list[OverrideError] = []
    chosen: list[str] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            errors.append(OverrideError(_explain_syntax(text, error), text))
            continue
        if group := _group_of(override):
            problem = _check_options(override, group)
            errors += [problem] if problem else []
            chosen += [first_of(right)] if (right := problem.meant if problem else text) else []
        else:
            values.append(override)
    try:
        with compose.compose_with_hydra(chosen) as composed:
            plain: Any = OmegaConf.to_container(composed, resolve=False)
        found = [_check_key({key: node for key, node in plain.items() if key != "hydra"}, override) for override in values]
        errors += filter(None, found)
        right_ones = [first_of(_text(each)) for each, problem in zip(values, found, strict=True) if problem is None]
        with compose.compose_with_hydra([*chosen, *right_ones]) as composed:
            errors += [OverrideError(message) for message in _unresolved(composed)]
    except compose.CONFIG_ERRORS as error:
        errors.append(OverrideError(first_words(error)))
    return errors


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


def _check_options(override: Override, group: str) -> OverrideError | None:
    if group.startswith("hydra/"):
        return None  # packages add to these, and Hydra lists them
    text, known = _text(override), options_of(group)
    messages, meant = [], text.split("=", 1)[-1]
    for option in _options_in(override):
        if option not in known:
            messages.append(f"{text}: conf/{group}/ has no {option}.yaml. {nearest(option, known)}")
            near = closest(option, known)
            meant = meant.replace(option, near[0]) if near else ""
    if override.key_or_group != group:
        both = f"{group}={meant}" if messages and meant else group
        unknown = f"{text}: the config has no key '{override.key_or_group}'. Did you mean '{both}'?"
        messages = [unknown, *([] if meant else messages)]
    if not messages:
        return None
    package = f"@{override.package}" if override.package else ""
    right = f"{SIGNS.get(override.type, '')}{group}{package}={meant}" if meant else None
    return OverrideError("\n".join(messages), text, right)


def _text(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _options_in(override: Override) -> list[str]:
    """Returns the options that an override names: one, those of a list, or those of a multirun."""
    if override.type is OverrideType.DEL:
        return []
    value: Any = override.value()
    if override.is_sweep_override():
        value = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    named = value if isinstance(value, list) else [value]
    return [str(option) for option in named if option is not None and not str(option).startswith("[")]


def _check_key(node: Any, override: Override) -> OverrideError | None:
    """Returns what is wrong with the key of an override, in a config that is composed without it."""
    text, key = _text(override), override.key_or_group
    parts, right, message = key.split("."), list[str](), ""
    if parts[0] == "hydra":
        return None
    for depth, part in enumerate(parts):
        if isinstance(node, list):
            return None  # Hydra knows which places there are
        if not isinstance(node, Mapping):
            return OverrideError(f"{text}: {'.'.join(right)} is {node!r}, which holds no keys", text)
        if part not in node:
            is_last = depth == len(parts) - 1
            if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and right and (is_last or "_target_" not in node):
                return _check_added(node, text, key, ".".join(right))
            known = [str(name) for name in node if name not in HYDRAS_OWN]
            known += [] if right else [group for group in groups_there() if group not in known]
            near, message = closest(part, known), message or f"{text}: {'.'.join(right) or 'the config'} has no key '{part}'."
            if not near:
                return OverrideError(f"{message} {_hint(node, key, part, known, is_last=is_last)}", text)
            part = near[0]
        right.append(part)
        node = node.get(part)
    meant = ".".join(right)
    if message:
        shown = right[-1] if right[:-1] == parts[:-1] else meant
        return OverrideError(f"{message} Did you mean '{shown}'?", text, text.replace(key, meant, 1))
    if override.type is OverrideType.ADD:
        return OverrideError(f"{text}: {key} is in the config already: write it without the +", text, text.removeprefix("+"))
    return None


def _check_added(node: Mapping[str, Any], text: str, key: str, place: str) -> OverrideError | None:
    """Returns what is wrong with a key that an override adds to a node that may say what it takes."""
    taken = names_taken(str(node["_target_"])) if "_target_" in node else None
    name = key.rpartition(".")[2]
    if taken is None or name in taken:
        return None
    error = unknown_argument(place, name, str(node["_target_"]).rpartition(".")[2], taken)
    meant = [text.replace(key, suggestion, 1) for suggestion in error.suggestions]
    is_there = [suggestion.rpartition(".")[2] in node for suggestion in error.suggestions]
    right = [each.lstrip("+") if there else each for each, there in zip(meant, is_there, strict=True)]
    return OverrideError(f"{text}: {str(error).partition(': ')[2]}", text, right[0] if right else None)


def _hint(node: Mapping[str, Any], key: str, name: str, known: list[str], *, is_last: bool) -> str:
    """Returns what to type where no known key is near: what is built from the node may take a key that no file names."""
    taken = names_taken(str(node["_target_"])) if "_target_" in node and is_last else None
    if taken and name in taken:
        return f"{str(node['_target_']).rpartition('.')[2]} takes it, but no file of conf/ names it: write +{key}=..."
    near = closest(name, taken or ())
    return f"Did you mean '+{key.removesuffix(name)}{near[0]}'?" if near else nearest(name, known)


def _unresolved(composed: DictConfig) -> Iterator[str]:
    """Yields what must be given, and values that refer to what is not there."""
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    for key, value in _leaves({key: node for key, node in plain.items() if key != "hydra"}):
        if value == "???":
            yield f"{key} must be given: add {key}=... to the command"
        elif isinstance(value, str) and "${" in value:
            try:
                OmegaConf.select(composed, key)
            except OmegaConfBaseException as error:
                hint = "; name a key that is there as ${GROUP.KEY}" if isinstance(error, InterpolationKeyError) else ""
                yield f"{key}={value}: {first_words(error)}{hint}"


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping | list):
        yield path, node
        return
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def command_of(corrected: Sequence[str], arguments: Sequence[str]) -> str:
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
