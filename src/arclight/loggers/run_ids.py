"""What a run is called in trackers, under which ids it goes on there after a resume, and what they are told of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arclight.config.compose import overrides_of
from arclight.distributed.environment import is_main_process

LONGEST_NAME = 120  # characters
WITHOUT_MEANING = ("logger", "experiment", "data", "model", "name", "hydra", "hardware", "debug", "local")
IDS = "trackers.json"
SWEEP = "WANDB_SWEEP_ID"  # the variable by which `wandb agent` tells a run which sweep it belongs to


def name_of(folder: Path, name: str) -> str:
    """What a run is called in lists of runs: data and model, and the settings that it was started with."""
    told = []
    for override in overrides_of(folder):
        key, equals, value = override.lstrip("+~").partition("=")
        if (
            equals
            and key not in WITHOUT_MEANING
            and not key.startswith(("logger.", "hydra.", "hardware.", "checkpoint.", "data.root"))
        ):
            told.append(f"{key.rpartition('.')[2]}={value}")
    return " ".join([name, *told])[:LONGEST_NAME]


def group_of(folder: Path, name: str) -> str:
    """What stands together there: the runs of a sweep or a grid, else those of the same data and model."""
    if sweep := os.environ.get(SWEEP):
        return f"sweep {sweep}"
    in_multirun = folder.absolute().parent.parent.name in ("multirun", "grid")  # grid: up to version 0.1
    return f"multirun {folder.absolute().parent.name}" if in_multirun else name


def id_of(folder: Path, tracker: str) -> str | None:
    """The id under which a tracker knows the run of this folder; None where it does not."""
    value = _ids(folder).get(tracker)
    return value if isinstance(value, str) and value else None


def keep_id(folder: Path, tracker: str, value: str) -> None:
    """Writes the id down, for the run that goes on in this folder."""
    if is_main_process():
        (folder / IDS).write_text(json.dumps({**_ids(folder), tracker: value}, indent=2) + "\n", encoding="utf-8")


def _ids(folder: Path) -> dict[str, Any]:
    return read_object(folder / IDS)


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing of one that is not there, broken, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def facts_of(folder: Path) -> dict[str, Any]:
    """Overrides, git state, hardware and versions of a run, from its folder; of uncommitted changes only that there are."""
    environment = read_object(folder / "environment.json")
    git = environment.get("git")
    facts: dict[str, Any] = {"overrides": " ".join(overrides_of(folder)), "folder": str(folder)}
    if isinstance(git, Mapping):
        facts["git"] = {"commit": git.get("commit", ""), "has_uncommitted_changes": bool(git.get("diff"))}
    return facts | {key: environment[key] for key in ("system", "python", "packages", "hardware") if key in environment}
