"""Where a key of a config was set: the override, or the file under conf/."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from arclight.config import compose, locations
from arclight.config.known_names import unknown_keys
from arclight.config.override_errors import command_of, find_errors
from arclight.errors import join_errors

HEAD = re.compile(r"([A-Za-z_][\w.]*)(?==|: | (?:needs|must be given))")  # the key that a message begins with
NEAR = re.compile(r"Did you mean '([^']+)'\?")


class Setting(NamedTuple):
    """Where a key is set: the override, if one does; the file otherwise, and the override that chose the file, if one did."""

    override: str = ""
    file: str = ""
    chosen_by: str = ""

    def __str__(self) -> str:
        if self.override:
            return f"set by {self.override}"
        return f"set in {self.file}" + (f", chosen by {self.chosen_by}" if self.chosen_by else "")


def explain_unknown(settings: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What to tell of the keys of a config that nothing takes; empty where there are none.

    Also where the command chooses a recipe and then another option than the recipe is written for: what does not go together
    can only be told once the targets are known.
    """
    unknown, provenance = unknown_keys(settings), Provenance(overrides)
    chosen = {text.partition("=")[0] for text in overrides}
    for message in unknown:
        head = HEAD.match(message)
        setting = provenance.of(head[1]) if head else None
        if head and setting and (recipe := setting.chosen_by.partition("=")[0]):
            group = head[1].partition(".")[0]
            if group in chosen and recipe != group:
                return ""
    return provenance.told(unknown) if unknown else ""


class Provenance:
    """Answers where keys were set by these overrides.

    Args:
        overrides: of a command that composes.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = tuple(overrides)

    def of(self, key: str) -> Setting | None:
        """Where the key, or the node around it, is set; None where nothing sets it.

        What composes later wins: an override of the command line, then the files from the last to the first.
        """
        for override in reversed(self.overrides):
            name, _, value = override.partition("=")
            is_choice = (locations.CONF / name).is_dir() and not value.startswith("{")
            if key == name or (is_within(key, name.lstrip("+")) and not is_choice):
                return Setting(override=override)
        for file, package, content in reversed(self._files):
            if holds(content, within(key, package)):
                chosen_by = [text for text in self.overrides if text.partition("=")[0].lstrip("+") == file.rpartition("/")[0]]
                return Setting(file=f"conf/{file}.yaml", chosen_by=chosen_by[-1] if chosen_by else "")
        return None

    @functools.cached_property
    def _files(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """The files under conf/ in the order in which they compose, each with its package and content."""
        with compose.hydra_set_aside(), initialize_config_dir(str(locations.CONF), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            try:
                defaults = loader.compute_defaults_list("train", list(self.overrides), RunMode.RUN).defaults
            except HydraException:
                return []
        files = []
        for default in defaults:
            path = locations.CONF / f"{default.config_path}.yaml"
            if path.is_file():
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
                if isinstance(content, Mapping):
                    files.append((str(default.config_path), str(default.package or ""), content))
        return files

    def placed(self, message: str) -> str:
        """The message with where the key that it begins with was set; as it is where that says nothing new."""
        found = HEAD.match(message)
        setting = self.of(found[1]) if found else None
        if setting is None or message.startswith(f"{setting.override}:") or f"{setting} " in message:
            return message
        first, newline, rest = message.partition("\n")
        return f"{first} ({setting}){newline}{rest}"

    def meant(self, message: str) -> tuple[str, str] | None:
        """The override that a message is about and the one that was probably meant; None where that is not known."""
        head, near = HEAD.match(message), NEAR.search(message)
        setting = self.of(head[1]) if head and near else None
        if head is None or near is None or setting is None or not setting.override:
            return None
        name, _, value = setting.override.partition("=")
        if name.lstrip("+") != head[1]:
            return None
        is_value = message[head.end()] == "="
        return setting.override, f"{name}={near[1]}" if is_value else f"{name.rpartition('.')[0]}.{near[1]}={value}"

    def told(self, messages: Sequence[str]) -> str:
        """Messages as one, each with where its key was set, and the command that was probably meant."""
        meant = dict(pair for pair in map(self.meant, messages) if pair)
        command = ""
        if len(meant) == len(messages):
            mended = [meant.get(override, override) for override in self.overrides]
            plain = [text.lstrip("+") if text in meant.values() else text for text in mended]  # what conf/ has wants no plus
            command = next((command_of(each, self.overrides) for each in (plain, mended) if not find_errors(each)), "")
        return join_errors([self.placed(message) for message in messages], command)


def is_within(key: str, name: str) -> bool:
    """Whether a key is `name`, or stands below it."""
    return key == name or key.startswith(f"{name}.")


def within(key: str, package: str) -> list[str]:
    """The parts of a key below a file's package; none where it does not stand there."""
    if not package:
        return key.split(".")
    return key.removeprefix(f"{package}.").split(".") if key.startswith(f"{package}.") else []


def holds(content: Any, parts: Sequence[str]) -> bool:
    """Whether a file's content sets the key of these parts, or a whole node around it that is no mapping."""
    if not parts:
        return False
    for part in parts:
        if not isinstance(content, Mapping):
            return True
        if part not in content:
            return False
        content = content[part]
    return True
