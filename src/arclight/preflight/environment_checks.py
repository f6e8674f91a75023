"""Errors around a config: missing directories and files, a full disk, loggers that cannot start, checkpoints of other nets."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from arclight.checkpoint.contents import build_module, check_fits, find_intact, load_checkpoint
from arclight.checkpoint.metadata import metadata_of
from arclight.config.compose import RunConfig
from arclight.config.instantiate import find_target, parameters_of
from arclight.data.info import from_plain
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, closest, nearest
from arclight.interfaces import DataInfo

LEAST_BYTES, SCARCE_BYTES = 10**6, 10**9  # free for a run: with less it cannot start; with less it starts with a warning
MORE = 2  # checkpoints besides those that `keep` counts: the best, and the one that is being written
STATES = 3  # weights and the two moments of Adam
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
NOT_IN_A_PROJECT = set("/\\#?%:")
PACKAGES = {  # that loggers need, by the last part of their _target_
    **{"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard"},
    **{"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml", "LitLogger": "litlogger"},
}

log = logging.getLogger(__name__)


def check_environment(run_config: RunConfig) -> list[InputError]:
    """Returns everything that a run needs and this machine does not have; what may work all the same is a warning."""
    errors = [*_data_errors(run_config.settings["data"]), *_run_dir_errors(run_config)]
    for name, logger in run_config.settings["logger"].items():
        errors += _logger_errors(name, logger if isinstance(logger, Mapping) else {})
    return [*errors, *_checkpoint_errors(run_config)]


def _data_errors(data: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for data that is not there and cannot be downloaded."""
    root = data.get("root")
    if not isinstance(root, str):
        return
    if not root.strip():
        yield InputError(f"data.root={root} must name a directory", key="data.root")
        return
    place = Path(root).expanduser()
    try:
        can_download = "download" in parameters_of(str(data["_target_"])) and data.get("download", True)
    except InputError:
        return
    if not place.exists() and not can_download:
        siblings = [str(other) for other in place.parent.iterdir()] if place.parent.is_dir() else []
        hint = nearest(root, siblings) if closest(root, siblings) else "Give the directory that holds the data."
        yield InputError(f"data.root={root}: no such directory. {hint}", key="data.root")
    elif not place.exists() and not _is_writable(parent := _existing(place)):
        message = f"data.root={root}: nothing can be downloaded to there, because {parent} is not a writable directory"
        yield InputError(message, key="data.root")


def _run_dir_errors(run_config: RunConfig) -> Iterator[InputError]:
    """Yields an error for a run directory that cannot be written, or a disk without space for a checkpoint."""
    place = _existing(run_config.folder)
    if not _is_writable(place):
        yield InputError(f"{run_config.folder}: the run cannot be written, because {place} is not a writable directory")
        return
    if run_config.settings["trainer"].get("fast_dev_run"):
        return
    free, weights = shutil.disk_usage(place).free, pretrained_bytes(run_config.settings) or 0
    space = f"{place.resolve()} has {free / 1e6:,.0f} MB free"
    if free < (least := max(LEAST_BYTES, weights)):
        yield InputError(f"{space}, and a checkpoint of this run takes {least / 1e6:,.0f} MB or more; free some space")
        return
    keep, top = (run_config.settings["checkpoint"].get(name, 0) for name in ("keep", "save_top_k"))
    num_kept = (keep if isinstance(keep, int) else 2) + (top if isinstance(top, int) and top > 1 else 0)
    needed = (num_kept + MORE) * STATES * weights
    if is_main_process() and free < max(SCARCE_BYTES, needed):
        all_of_them = f", and its checkpoints may take {needed / 1e6:,.0f} MB" if weights else ""
        log.warning("%s%s; when the disk is full, the last complete checkpoint stays", space, all_of_them)


def _existing(path: Path) -> Path:
    """Returns the path, or its nearest parent that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _is_writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK)


def pretrained_bytes(settings: Mapping[str, Any]) -> int | None:
    """Returns the size of the pretrained weights that the net reads from this machine, None where it reads none."""
    try:
        size = getattr(find_target(str(settings["model"].get("_target_")), "model"), "pretrained_bytes", None)
    except InputError:
        return None
    found: int | None = size(settings["model"]) if size else None
    return found


def _logger_errors(name: str, settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for a logger whose package is missing, or whose settings its server would refuse."""
    kind = str(settings.get("_target_", "")).rpartition(".")[2]
    if kind in PACKAGES and importlib.util.find_spec(PACKAGES[kind]) is None:
        message = f"logger.{name}: {PACKAGES[kind]} is not installed. Try: pip install {PACKAGES[kind].replace('_', '-')}"
        yield InputError(f"{message}; or leave this logger out: ~logger.{name}", key=f"logger.{name}")
    if kind == "wandb":
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode not in WANDB_MODES:
            modes = ", ".join(WANDB_MODES[:4])
            yield InputError(f"WANDB_MODE={mode} in the environment must be one of {modes}; unset WANDB_MODE, or set one")
        project = settings.get("project")
        if isinstance(project, str) and (not project or len(project) > 128 or NOT_IN_A_PROJECT & set(project)):
            message = f"logger.{name}.project={project} must have 1 to 128 characters, and none of / \\ # ? % :"
            yield InputError(message, key=f"logger.{name}.project")


def _checkpoint_errors(run_config: RunConfig) -> Iterator[InputError]:
    """Yields an error for a run that is resumed, but whose checkpoints are damaged or hold another net."""
    try:
        path, _ = find_intact(run_config.folder)
    except InputError as error:
        yield error
        return
    if path is not None:
        metadata = metadata_of(load_checkpoint(path), path)
        plain = metadata["data_info"]
        yield from _net_errors(run_config, metadata["settings"], path, None if plain is None else from_plain(plain))


def _net_errors(
    run_config: RunConfig, before: Mapping[str, Any], path: Path, data_info: DataInfo | None
) -> Iterator[InputError]:
    """Yields an error for a net other than a checkpoint's; pretrained weights are not loaded for it but compared later."""
    theirs, ours = (str(settings["model"].get("_target_")) for settings in (before, run_config.settings))
    if theirs != ours:
        theirs, ours = (name.rpartition(".")[2] for name in (theirs, ours))
        yield InputError(
            f"model: {path} holds the weights of {theirs}, not of {ours}; train the new net in a new run, without resume"
        )
    elif before["model"] != run_config.settings["model"] and pretrained_bytes(run_config.settings) is None:
        try:
            with torch.device("meta"):
                module = build_module(run_config.settings, data_info)
        except Exception:  # settings that are reported elsewhere, or a user's own net that cannot be built without memory
            log.debug("the net could not be built on the meta device", exc_info=True)
            return
        try:
            check_fits(module, path)
        except InputError as error:
            yield error
