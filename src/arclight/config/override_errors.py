"""All mistakes of a command line told at once, by names alone: nothing that a config would call is imported.

Hydra stops at the first mistake. Here every override is looked at by itself, in a config composed of those that are right.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from arclight.config import compose, locations
from arclight.config.known_names import groups_there, keys_at_top, names_there, options_of
from arclight.config.signatures import names_taken
from arclight.errors import join_errors, nearest

SIGNS = {OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++", OverrideType.DEL: "~"}
# Hydra's own options that have a value after them
WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")


@dataclass(frozen=True)
class OverrideError:
    """What is wrong with an override (or with a key that no override sets), and the override that was probably meant."""

    told: str
    override: str = ""
    meant: str | None = None


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with a config, in the user's terms, mistake by mistake; what Hydra says of it where none is found.

    Args:
        error: of Hydra or OmegaConf.
        arguments: the command line, or overrides alone.
    """
    errors = find_errors(overrides_in(arguments))
    if not errors:
        return first_words(error)
    return join_errors([error.told for error in errors], command_meant(errors, arguments))


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """The overrides of a command line, without Hydra's options and their values."""
    own = []
    values = iter(arguments)
    for argument in values:
        if argument in WITH_VALUE:
            next(values, None)
        elif not argument.startswith("-"):
            own.append(argument)
    return own


def find_errors(overrides: Sequence[str]) -> list[OverrideError]:
    """Unknown groups, options and keys, values that cannot be read, references to nothing, and what must be given."""
    errors, parsed = [], []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except HydraException as error:
            errors.append(OverrideError(explain_form(text, error), text, None))
    chosen: list[str] = []
    values: list[Override] = []
    for override in parsed:
        if group := group_of(override):
            problem = check_options(override, group)
            errors += [problem] if problem else []
            right = written(override) if problem is None else problem.meant
            chosen += [] if right is None else [first_of(right)]
        else:
            values.append(override)
    try:
        with compose.compose_with_hydra(chosen) as composed:
            found = [check_key(composed, override) for override in values]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        return [*errors, OverrideError(first_words(error))]
    errors += [problem for problem in found if problem]
    right_ones = [written(override) for override, problem in zip(values, found, strict=True) if problem is None]
    try:
        with compose.compose_with_hydra([*chosen, *(first_of(text) for text in right_ones)]) as composed:
            errors += [OverrideError(told) for told in unresolved(composed)]
    except (HydraException, OmegaConfBaseException) as error:
        errors.append(OverrideError(first_words(error)))
    return errors


def explain_form(text: str, error: Exception) -> str:
    """Why a text is no override."""
    if "=" not in text:
        groups = [group for group in groups_there() if text in options_of(group)]
        known = [f"{key}=..." for key in (*groups_there(), *keys_at_top())]
        near = f"Did you mean '{groups[0]}={text}'?" if groups else nearest(f"{text}=...", known)
        return f"{text} is no override, which has the form KEY=VALUE. {near}"
    return f"{text} cannot be read ({first_words(error)}); a value with special characters wants quotes: \"KEY='VALUE'\""


def group_of(override: Override) -> str:
    """The group of conf/ that an override chooses from, by its own name or by that which was meant; empty for a key."""
    key = override.key_or_group
    if (locations.CONF / key).is_dir() or key.startswith("hydra/"):
        return key
    if "." in key or key in keys_at_top() or override.type is not OverrideType.CHANGE:
        return ""
    close = difflib.get_close_matches(key, [*groups_there(), *keys_at_top()], n=1, cutoff=0.6)
    return close[0] if close and close[0] in groups_there() else ""


def check_options(override: Override, group: str) -> OverrideError | None:
    """What is wrong with an override that chooses from this group."""
    if group.startswith("hydra/"):
        return None  # packages add to these, and Hydra lists them
    text, key = written(override), override.key_or_group
    known = options_of(group)
    told, meant = [], text.split("=", 1)[-1]
    for option in options_in(override):
        if option not in known:
            told.append(f"{text}: conf/{group}/ has no {option}.yaml. {nearest(option, known)}")
            close = difflib.get_close_matches(option, known, n=1, cutoff=0.6)
            meant = meant.replace(option, close[0]) if close else ""
    if key != group:
        both = f"{group}={meant}" if told and meant else group
        told = [f"{text}: the config has no key '{key}'. Did you mean '{both}'?", *([] if meant else told)]
    if not told:
        return None
    sign = SIGNS.get(override.type, "")
    package = f"@{override.package}" if override.package else ""
    return OverrideError("\n".join(told), text, f"{sign}{group}{package}={meant}" if meant else None)


def written(override: Override) -> str:
    """The override as it was typed."""
    assert override.input_line is not None
    return override.input_line


def options_in(override: Override) -> list[str]:
    """The options that an override names: one, those of a list, or those of a grid."""
    if override.type is OverrideType.DEL:
        return []
    value: Any = override.value()
    if override.is_sweep_override():
        value = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    named = value if isinstance(value, list) else [value]
    return [str(option) for option in named if option is not None and not str(option).startswith("[")]


def check_key(composed: DictConfig, override: Override) -> OverrideError | None:
    """What is wrong with the key of an override, in a config that is composed without it."""
    text, key = written(override), override.key_or_group
    if key.startswith("hydra."):
        return None
    adds = override.type in (OverrideType.ADD, OverrideType.FORCE_ADD)
    node: Any = composed
    right: list[str] = []  # the key as it was meant
    parts = key.split(".")
    told = ""
    for depth, part in enumerate(parts):
        if isinstance(node, ListConfig):
            return None  # Hydra knows which places there are
        where = f"{'.'.join(right)} has" if right else "the config has"
        if not isinstance(node, DictConfig):
            return OverrideError(f"{text}: {'.'.join(right)} is {node!r}, which holds no keys", text)
        if part not in node:
            is_last = depth == len(parts) - 1
            known = names_there(node)
            if adds and right and (is_last or "_target_" not in node):
                return check_added(node, override, right)
            close = difflib.get_close_matches(part, known, n=1, cutoff=0.6)
            if not close:
                return OverrideError(
                    f"{text}: {where} no key '{part}'. {more_of(node, key, part, known, is_last=is_last)}", text
                )
            told = told or f"{text}: {where} no key '{part}'."
            part = close[0]
        right.append(part)
        node = (
            node._get_node(part) if OmegaConf.is_missing(node, part) or OmegaConf.is_interpolation(node, part) else node[part]
        )
    meant = ".".join(right)
    if told:
        only_last = right[:-1] == parts[:-1]
        return OverrideError(f"{told} Did you mean '{right[-1] if only_last else meant}'?", text, renamed(text, key, meant))
    if override.type is OverrideType.ADD:
        return OverrideError(
            f"{text}: {key} stands in the config already: write it without the +", text, text.removeprefix("+")
        )
    return None


def check_added(node: DictConfig, override: Override, right: list[str]) -> OverrideError | None:
    """What is wrong with a key that an override adds to what the config has."""
    text, key, name = written(override), override.key_or_group, override.key_or_group.rpartition(".")[2]
    taken = names_taken(str(node["_target_"])) if "_target_" in node else None
    if taken is None or name in taken:
        return None
    place, target = ".".join(right), str(node["_target_"]).rpartition(".")[2]
    close = difflib.get_close_matches(name, taken, n=1, cutoff=0.6)
    meant = None
    if close:
        meant = renamed(text, key, f"{place}.{close[0]}")
        meant = meant.lstrip("+") if close[0] in node else meant
    return OverrideError(f"{text}: {target} takes no '{name}'. {nearest(name, taken)}", text, meant)


def more_of(node: DictConfig, key: str, name: str, known: list[str], *, is_last: bool) -> str:
    """The way out where no known key is near: what is built from the node may take it, though no file of conf/ names it."""
    taken = names_taken(str(node["_target_"])) if "_target_" in node and is_last else None
    if taken and name in taken:
        return f"{str(node['_target_']).rpartition('.')[2]} takes it, though no file of conf/ says so: write +{key}=..."
    close = difflib.get_close_matches(name, taken or (), n=1, cutoff=0.6)
    return f"Did you mean '+{key.removesuffix(name)}{close[0]}'?" if close else nearest(name, known)


def renamed(text: str, key: str, meant: str) -> str:
    """The override with another key."""
    return text.replace(key, meant, 1)


def unresolved(composed: DictConfig) -> Iterator[str]:
    """What must be given, and values that refer to what is not there."""
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    for key, node in nodes(own):
        if node._is_missing():
            yield f"{key} must be given: add {key}=... to the command"
        elif node._is_interpolation():
            try:
                node._dereference_node()
            except OmegaConfBaseException as error:
                out = "; name a key that is there as ${GROUP.KEY}" if isinstance(error, InterpolationKeyError) else ""
                yield f"{key}={node._value()}: {first_words(error)}{out}"


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config by dotted key, references not followed."""
    if (
        isinstance(node, DictConfig | ListConfig)
        and not node._is_interpolation()
        and not node._is_missing()
        and not node._is_none()
    ):
        keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
        for key in keys:
            yield from nodes(node._get_node(key), f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def command_meant(errors: Sequence[OverrideError], arguments: Sequence[str]) -> str:
    """The whole command as it was probably meant; empty where that is not known of every mistake, or does not compose."""
    if any(error.meant is None for error in errors):
        return ""
    meant = {error.override: str(error.meant) for error in errors}
    mended = [meant.get(argument, argument) for argument in arguments]
    return "" if find_errors(overrides_in(mended)) else command_of(mended, arguments)


def command_of(mended: Sequence[str], arguments: Sequence[str]) -> str:
    """How these arguments are typed: as the command that this process was started with, else as one of train.py."""
    typed = [shlex.quote(argument) for argument in mended]
    if sys.argv[0].endswith("__main__.py") and sys.argv[1:][-len(arguments) :] == list(arguments):
        before = sys.argv[1 : len(sys.argv) - len(arguments)]
        return " ".join(["python -m arclight", *before, *typed])
    return " ".join(["python train.py", *typed])


def first_of(text: str) -> str:
    """An override with the first of a grid's values in place of all."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_sweep_override():
        return text
    value = next(iter(override.sweep_string_iterator())) if override.is_discrete_sweep() else "null"
    return f"{text.partition('=')[0]}={value}"


def first_words(error: Exception) -> str:
    """What an error of Hydra or OmegaConf says, without its trace of keys and files."""
    text = str(error).split("\n    full_key")[0].split("\nConfig search path")[0].split("\nSee https://hydra.cc")[0]
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    return text.strip().strip('"') or type(error).__name__
