"""Where a key of a config is set: the override, or the file under conf/."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from arclight.config import compose, locations
from arclight.config.known_names import unknown_keys
from arclight.config.override_errors import command_meant, find_errors
from arclight.errors import InputError, join_errors


class Setting(NamedTuple):
    """Where a key is set: the override, if one does; else the file, and the override that chose the file, if one did."""

    override: str = ""
    file: str = ""
    chosen_by: str = ""

    def __str__(self) -> str:
        if self.override:
            return f"set by {self.override}"
        return f"set in {self.file}" + (f", chosen by {self.chosen_by}" if self.chosen_by else "")


def explain_unknown(settings: Mapping[str, Any], overrides: Sequence[str]) -> InputError | None:
    """Returns the error for the keys of a config that nothing takes; None where there are none.

    Also None where the command chooses a recipe and then another option than the recipe is written for: preflight, which
    imports the targets, knows what does not go together.
    """
    errors, provenance = unknown_keys(settings), Provenance(overrides)
    chosen = {text.partition("=")[0] for text in overrides}
    for error in errors:
        setting = provenance.of(error.key) if error.key else None
        if error.key and setting and (recipe := setting.chosen_by.partition("=")[0]):
            group = error.key.partition(".")[0]
            if group in chosen and recipe != group:
                return None
    return provenance.join(errors) if errors else None


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
            if key == name or (f"{key}.".startswith(f"{name.lstrip('+')}.") and not is_choice):
                return Setting(override=override)
        for file, package, content in reversed(self._files):
            below = key.removeprefix(f"{package}.") if package else key
            if (not package or below != key) and holds(content, below.split(".")):
                group = file.rpartition("/")[0]
                chosen_by = [text for text in self.overrides if text.partition("=")[0].lstrip("+") == group]
                return Setting(file=f"conf/{file}.yaml", chosen_by=chosen_by[-1] if chosen_by else "")
        return None

    @functools.cached_property
    def _files(self) -> list[tuple[str, str, Any]]:
        """The files under conf/ in the order in which they compose, each with its package and content."""
        with compose.without_hydra(), initialize_config_dir(str(locations.CONF), **locations.VERSION_BASE):
            loader = GlobalHydra.instance().config_loader()
            try:
                defaults = loader.compute_defaults_list("train", list(self.overrides), RunMode.RUN).defaults
            except HydraException:
                return []
        paths = [(default, locations.CONF / f"{default.config_path}.yaml") for default in defaults]
        return [
            (str(default.config_path), str(default.package or ""), yaml.safe_load(path.read_text(encoding="utf-8")))
            for default, path in paths
            if path.is_file()
        ]

    def with_place(self, error: InputError) -> InputError:
        """Returns the error with the place where its key is set, at the end of the first line."""
        setting = self.of(error.key) if error.key else None
        if setting is None or str(error).startswith(f"{setting.override}:"):
            return error
        first, newline, rest = str(error).partition("\n")
        return InputError(f"{first} ({setting}){newline}{rest}", key=error.key, suggestions=error.suggestions)

    def correction(self, error: InputError) -> tuple[str, str] | None:
        """Returns the override that an error is about and the one that was probably meant; None where that is not known."""
        setting = self.of(error.key) if error.key and error.suggestions else None
        name, _, value = (setting.override if setting else "").partition("=")
        if setting is None or name.lstrip("+") != error.key:
            return None
        sign, suggestion = name[: len(name) - len(error.key)], error.suggestions[0]
        return setting.override, f"{sign}{suggestion}" + ("" if "=" in suggestion else f"={value}")

    def join(self, errors: Sequence[InputError]) -> InputError:
        """Returns one error for all of these, each with where its key is set, and the command that was probably meant."""
        meant = dict(pair for pair in map(self.correction, errors) if pair)
        command = ""
        if len(meant) == len(errors):
            corrected = [meant.get(override, override) for override in self.overrides]
            command = command_meant(corrected, find_errors(corrected), self.overrides)  # such as a plus before a key of conf/
        return join_errors([self.with_place(error) for error in errors], command)


def holds(content: Any, parts: Sequence[str]) -> bool:
    """Returns whether a file's content sets the key of these parts, or a whole node around it that is no mapping."""
    for depth, part in enumerate(parts):
        if not isinstance(content, Mapping):
            return depth > 0
        if part not in content:
            return False
        content = content[part]
    return True
