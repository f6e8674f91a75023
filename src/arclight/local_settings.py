"""conf/local/default.yaml, this machine's own settings: one key set in it, everything else left as its owner wrote it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from arclight.config import CONF
from arclight.errors import InputError

PATH = CONF / "local" / "default.yaml"
HEADER = "# @package _global_"
MARK = "# found by"  # how a comment begins that a later one takes the place of


def set_local(group: str, key: str, value: int, *, comment: str, path: Path) -> None:
    """Sets `group.key` to the value, with the comment above it; other keys, comments and their order stay.

    The file comes into being where it is missing, and is in place whole or not at all.

    Args:
        group: a key at the top of the config, such as "data".
        key: the key inside.
        value: what it is set to.
        comment: one line without the #, beginning with "found by".
        path: of the file.

    Raises:
        InputError: when the file is no mapping, would not be composed into the top of the config, or is written in a way that
            cannot be edited safely.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    parse(text, path)
    settings = load(text, path) or {}
    opening = takewhile(lambda line: not line.strip() or line.startswith("#"), text.splitlines())
    has_header = any(re.match(r"#\s*@package\s+_global_\s*$", line) for line in opening)
    if not has_header and settings:
        raise InputError(f"{path}: its first line must be '{HEADER}', else its keys never reach the config")
    held = settings.get(group)
    if not isinstance(held, dict | None):
        raise InputError(f"{path}: {group} is no mapping of keys, so that {group}.{key}={value} has no place in it")
    wanted = {**settings, group: {**(held or {}), key: value}}
    if not has_header:
        text = f"{HEADER}\n{text}"
    edited = edit(text, parse(text, path), group, key, value, f"# {comment}")
    with suppress(InputError):
        if load(edited, path) == wanted:
            replace(path, edited)
            return
    # anchors, merged keys, keys that stand twice, an end of the document
    raise InputError(f"{path} is written in a way that is not edited safely; set {group}.{key} to {value} in it by hand")


def parse(text: str, path: Path) -> yaml.MappingNode | None:
    """The file's top, with the places of its keys in the text; None when there are no keys."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} is no mapping of keys; it must look as conf/local/README.md shows")
    return root


def load(text: str, path: Path) -> Any:
    """What the text holds, as plain data."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML of plain values: {error}") from error


def edit(text: str, root: yaml.MappingNode | None, group: str, key: str, value: int, comment: str) -> str:
    """The text with the key in its place."""
    entry = f"{key}: {value}"
    found = child(root, group)
    if root is None or (found is None and not root.flow_style):
        return f"{text.rstrip()}\n{group}:\n  {comment}\n  {entry}\n"
    if found is None:
        return insert(text, root, f"{group}: {{{entry}}}", comment)
    name, node = found
    if not isinstance(node, yaml.MappingNode):  # `group:` and nothing, or null
        start, end = name.end_mark.index, node.end_mark.index
        indent = " " * (name.start_mark.column + 2)
        return with_line(text[:start] + ":" + text[max(end, start + 1) :], start, f"{indent}{comment}\n{indent}{entry}\n")
    if held := child(node, key):
        text = text[: held[1].start_mark.index] + str(value) + text[held[1].end_mark.index :]
        return commented(text, held[0].start_mark.index, comment)
    return insert(text, node, entry, comment)


def child(node: yaml.MappingNode | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The key and its value, if the mapping has it."""
    return next((pair for pair in node.value if pair[0].value == key), None) if node is not None else None


def insert(text: str, node: yaml.MappingNode, entry: str, comment: str) -> str:
    """The entry as the first of this mapping."""
    if node.flow_style:
        at = node.start_mark.index + 1
        return commented(f"{text[:at]}{entry}{', ' if node.value else ''}{text[at:]}", at, comment)
    first = node.value[0][0].start_mark
    line = text.rfind("\n", 0, first.index) + 1
    indent = " " * first.column
    return f"{text[:line]}{indent}{comment}\n{indent}{entry}\n{text[line:]}"


def with_line(text: str, at: int, lines: str) -> str:
    """The lines after the one that `at` stands in."""
    end = text.find("\n", at)
    return f"{text}\n{lines}" if end < 0 else f"{text[: end + 1]}{lines}{text[end + 1 :]}"


def commented(text: str, at: int, comment: str) -> str:
    """The comment above the line that `at` stands in; an older one of ours gives way."""
    line = text.rfind("\n", 0, at) + 1
    before, indent = text[:line], re.match(r" *", text[line:])
    assert indent is not None
    previous = before.rfind("\n", 0, max(0, len(before) - 1)) + 1
    if before[previous:].strip().startswith(MARK):
        before = before[:previous]
    return f"{before}{indent[0]}{comment}\n{text[line:]}"


def replace(path: Path, text: str) -> None:
    """Puts the text in the file's place, at once; where the file is a link, in the place that it points to."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    if path.exists():
        shutil.copymode(path, part)
    part.replace(path)
