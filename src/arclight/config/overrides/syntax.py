"""Reads overrides by Hydra's grammar, and those that it cannot read as the text they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from arclight.config import locations
from arclight.config.known_names import groups_there, keys_at_top, options_of
from arclight.config.renamed import name_of
from arclight.errors import InputError, nearest

# Hydra's own options that have a value after them
WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")
# a value that can only be text, where Hydra's grammar does not know a character
PLAIN_TEXT = re.compile(r"""[^'"\[\]{}()$\\,]+|,""")


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


def read_as_text(override: str) -> str:
    """Returns an override whose value Hydra's grammar cannot read, and which can only be text, with the value quoted.

    Such values are paths with ~, =, # or letters of other alphabets, and separators such as a comma.
    """
    sign_and_key, equals, value = override.partition("=")
    if not equals or override.startswith(("-", "~")) or not PLAIN_TEXT.fullmatch(value) or parse(override) is not None:
        return override
    return override if parse(quoted := quoted_override(sign_and_key, value)) is None else quoted


def quoted_override(key: str, value: str) -> str:
    """Returns an override that sets a key to a text, quoted for Hydra."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", value)
    text = re.sub(r"(\\+)$", r"\1\1", text)  # before the closing quote
    return f"{key}='{text}'"


def shell_quoted(argument: str) -> str:
    """Returns an argument as it is typed in a shell: in double quotes where that is easier to read."""
    has_single_quotes = "'" in argument and not any(mark in argument for mark in '"$`\\!')
    return f'"{argument}"' if has_single_quotes else shlex.quote(argument)


def parse(override: str) -> Override | None:
    """Returns an override by Hydra's grammar; None where it cannot read it."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def first_of(text: str) -> str:
    """Returns an override with the first of a multirun's values in place of all."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_sweep_override():
        return text
    value, key = override.value(), text.partition("=")[0]
    if isinstance(value, Glob):
        return f"{key}={next(iter(value.filter(options_of(key))), 'null')}"
    first = next(iter(override.sweep_string_iterator())) if override.is_discrete_sweep() else "null"
    return f"{key}={first}"


def sweep_error(text: str) -> InputError:
    """Returns the error for an override with several values in a command without -m."""
    key, _, value = text.partition("=")
    if (locations.CONF / key).is_dir():
        hint = f"several options of a group that takes a list: {key}=[{value}]"
    else:
        hint = f"one text: {shell_quoted(quoted_override(key, value))}; a list: {shell_quoted(f'{key}=[{value}]')}"
    message = f"{text}: these are several values. A run of each: add -m to the command; {hint}"
    return InputError(message, key=name_of(text))


def syntax_error(text: str, error: Exception) -> InputError:
    """Returns the error for an override that Hydra's grammar cannot read; its suggestion is the value as text."""
    key, equals, value = text.partition("=")
    meant = quoted_override(key, value)
    if not equals or parse(meant) is None:
        return InputError(_explain_syntax(text, error), key=name_of(text))
    message = f"{text}: Hydra cannot read the value ({first_words(error)}); a text with special characters must be quoted"
    return InputError(message, key=name_of(text), suggestions=[meant.lstrip("+~")])


def _explain_syntax(text: str, error: Exception) -> str:
    if "=" not in text:
        groups = [group for group in groups_there() if text in options_of(group)]
        known = [f"{key}=..." for key in (*groups_there(), *keys_at_top())]
        near = f"Did you mean '{groups[0]}={text}'?" if groups else nearest(f"{text}=...", known)
        return f"{text}: this is not an override, which has the form KEY=VALUE. {near}"
    return f"{text}: Hydra cannot read it ({first_words(error)})"


def first_words(error: Exception) -> str:
    """Returns what an error of Hydra or OmegaConf says, without its trace of keys and files."""
    text = str(error).split("\n    full_key")[0].split("\nConfig search path")[0].split("\nSee https://hydra.cc")[0]
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    text = text.strip().strip('"')
    return text or (first_words(error.__cause__) if isinstance(error.__cause__, Exception) else type(error).__name__)
