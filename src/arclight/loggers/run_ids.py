"""What a run is called in loggers, under which ids it resumes there, and the metadata it sends them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arclight.config.atomic_file import read_json
from arclight.config.compose import overrides_of
from arclight.distributed.environment import is_main_process

MAX_NAME_LENGTH = 120  # characters
IDS = "trackers.json"
SWEEP = "WANDB_SWEEP_ID"  # set by `wandb agent`
# overrides that say nothing of what is trained
UNNAMED = ("logger", "experiment", "data", "model", "name", "hydra", "hardware", "debug", "local", "tags", "test")
UNNAMED_PREFIXES = ("logger.", "hydra.", "hardware.", "checkpoint.", "data.root")


def run_name(run_dir: Path, name: str) -> str:
    """Returns data and model, and the settings that the run was started with."""
    parts = [name]
    for override in overrides_of(run_dir):
        key, equals, value = override.lstrip("+~").partition("=")
        if equals and key not in UNNAMED and not key.startswith(UNNAMED_PREFIXES):
            parts.append(f"{key.rpartition('.')[2]}={value}")
    return " ".join(parts)[:MAX_NAME_LENGTH]


def run_group(run_dir: Path, name: str) -> str:
    """Returns the sweep or multirun that the run belongs to, else data and model."""
    if sweep := os.environ.get(SWEEP):
        return f"sweep {sweep}"
    in_multirun = run_dir.absolute().parent.parent.name in ("multirun", "grid")  # grid: up to version 0.1
    return f"multirun {run_dir.absolute().parent.name}" if in_multirun else name


def read_id(run_dir: Path, logger: str) -> str | None:
    """Returns the id of the run in a logger; None where it has none."""
    value = read_json(run_dir / IDS).get(logger)
    return value if isinstance(value, str) and value else None


def write_id(run_dir: Path, logger: str, value: str) -> None:
    """Stores the id for a run that resumes in this directory."""
    if is_main_process():
        ids = {**read_json(run_dir / IDS), logger: value}
        (run_dir / IDS).write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")


def run_metadata(run_dir: Path) -> dict[str, Any]:
    """Returns overrides, git commit, machine and versions of a run; of uncommitted changes only whether there are any."""
    environment = read_json(run_dir / "environment.json")
    git = environment.get("git")
    metadata: dict[str, Any] = {"overrides": " ".join(overrides_of(run_dir)), "folder": str(run_dir)}
    if isinstance(git, Mapping):
        metadata["git"] = {"commit": git.get("commit", ""), "has_uncommitted_changes": bool(git.get("diff"))}
    # not as "hardware": the config has a group of this name
    names = {"system": "system", "python": "python", "packages": "packages", "hardware": "machine"}
    return metadata | {name: environment[key] for key, name in names.items() if key in environment}
