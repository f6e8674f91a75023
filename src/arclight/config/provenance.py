"""Where a key of a config is set: the override, or the file under conf/."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from arclight.config import compose, locations
from arclight.errors import InputError


class Setting(NamedTuple):
    """Where a key is set: the override, if one does; else the file, and the override that chose the file, if one did."""

    override: str = ""
    file: str = ""
    chosen_by: str = ""

    def __str__(self) -> str:
        if self.override:
            return f"set by {self.override}"
        return f"set in {self.file}" + (f", chosen by {self.chosen_by}" if self.chosen_by else "")


class Provenance:
    """Answers where keys are set by the overrides of a command that composes."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = tuple(overrides)

    def of(self, key: str) -> Setting | None:
        """Returns where the key, or the node around it, is set; None where nothing sets it.

        What composes later wins: an override of the command line, then the files from the last to the first.
        """
        for override in reversed(self.overrides):
            name, _, value = override.partition("=")
            is_choice = (locations.CONF / name).is_dir() and not value.startswith("{")
            if key == name or (f"{key}.".startswith(f"{name.lstrip('+~')}.") and not is_choice):
                return Setting(override=override)
        for file, package, content in reversed(files_of(self.overrides, locations.conf_state())):
            below = key.removeprefix(f"{package}.") if package else key
            if (not package or below != key) and holds(content, below.split(".")):
                group = file.rpartition("/")[0]
                chosen_by = [text for text in self.overrides if text.partition("=")[0].lstrip("+") == group]
                return Setting(file=f"conf/{file}.yaml", chosen_by=chosen_by[-1] if chosen_by else "")
        return None

    def with_place(self, error: InputError) -> InputError:
        """Returns the error with the place where its key is set, at the end of the first line."""
        setting = self.of(error.key) if error.key else None
        if setting is None or str(error).startswith(f"{setting.override}:"):
            return error
        first, newline, rest = str(error).partition("\n")
        return InputError(f"{first} ({setting}){newline}{rest}", key=error.key, suggestions=error.suggestions)


@functools.lru_cache(maxsize=8)
def files_of(overrides: tuple[str, ...], state: frozenset[tuple[Path, int]]) -> list[tuple[str, str, Any]]:
    """Returns the files under conf/ in the order in which they compose, each with its package and content."""
    with compose.without_hydra(), initialize_config_dir(str(locations.CONF), **locations.VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        try:
            defaults = loader.compute_defaults_list("train", list(overrides), RunMode.RUN).defaults
        except HydraException:
            return []
    paths = [(default, locations.CONF / f"{default.config_path}.yaml") for default in defaults]
    return [
        (str(default.config_path), str(default.package or ""), yaml.safe_load(path.read_text(encoding="utf-8")))
        for default, path in paths
        if path.is_file()
    ]


def holds(content: Any, parts: Sequence[str]) -> bool:
    """Returns whether a file's content sets the key of these parts, or a whole node around it that is no mapping."""
    for depth, part in enumerate(parts):
        if not isinstance(content, Mapping):
            return depth > 0
        if part not in content:
            return False
        content = content[part]
    return True
