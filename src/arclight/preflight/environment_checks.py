"""Mistakes around a config: folders and files that are not there, a disk without room, trackers that cannot start."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from arclight.checkpoint.contents import build_module, check_fits, find_intact, load_checkpoint, metadata_of
from arclight.config.compose import RunConfig
from arclight.config.instantiate import parameters_of
from arclight.data.info import from_plain
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, nearest
from arclight.interfaces import DataInfo

LEAST_BYTES, SCARCE_BYTES = 10**6, 10**9  # free for a run: with less nothing at all can be written; with less it is told
MORE = 2  # checkpoints than those that are kept to go on from: the best, and the one that is being written
STATES = 3  # of Adam, with the weights
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
NOT_IN_A_PROJECT = set("/\\#?%:")
PACKAGES = {  # of trackers, and how to install them
    "wandb": "pip install wandb",
    "mlflow": "pip install 'arclight[mlflow]'",
    "tensorboard": "pip install tensorboard",
}

# Files of a folder that transformers reads: one of each group is enough
OF_ENCODER = (("config.json",), ("model.safetensors", "model.safetensors.index.json"))
OF_TOKENIZER = (("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"),)

log = logging.getLogger(__name__)


def check_environment(run_config: RunConfig) -> list[str]:
    """Everything that this machine lacks for a run, one message each; what may do all the same is a warning."""
    settings = run_config.settings
    errors = [*data_errors(settings["data"]), *encoder_errors(settings)]
    errors += folder_errors(run_config)
    for name, chosen in settings["logger"].items():
        errors += tracker_errors(name, chosen if isinstance(chosen, Mapping) else {})
    return [*errors, *checkpoint_errors(run_config)]


def data_errors(data: Mapping[str, Any]) -> Iterator[str]:
    """Data that is not there and that nothing would bring, or that has no place to be brought to."""
    root = data.get("root")
    if not isinstance(root, str):
        return
    place = Path(root).expanduser()
    try:
        can_download = "download" in parameters_of(str(data["_target_"])) and data.get("download", True)
    except InputError:
        return
    if not place.exists() and not can_download:
        there = [str(other) for other in place.parent.iterdir()] if place.parent.is_dir() else []
        yield f"data.root={root}: no such folder. {nearest(root, there) if there else 'Give the folder that holds the data.'}"
    elif not place.exists() and (parent := standing(place)) and not (parent.is_dir() and os.access(parent, os.W_OK)):
        yield f"data.root={root}: nothing can be downloaded to there, as {parent} is no folder that can be written in"


def encoder_errors(settings: Mapping[str, Any]) -> Iterator[str]:
    """A folder of an encoder or a tokenizer that is not there or not whole."""
    checkpoint, tokenizer = settings["model"].get("checkpoint"), settings["data"].get("tokenizer")
    if isinstance(checkpoint, str) and is_path(checkpoint):
        yield from files_lacking("model.checkpoint", checkpoint, OF_ENCODER)
    is_told = tokenizer == checkpoint and not Path(str(tokenizer)).expanduser().is_dir()
    if isinstance(tokenizer, str) and is_path(tokenizer) and not is_told:
        yield from files_lacking("data.tokenizer", tokenizer, OF_TOKENIZER)


def is_path(name: str) -> bool:
    """Whether a name can only be that of a folder, not one on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def files_lacking(key: str, name: str, wanted: Sequence[Sequence[str]]) -> Iterator[str]:
    """Tells a folder that is not there, or holds none of the files of a group."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        there = [str(other) for other in folder.parent.iterdir() if other.is_dir()] if folder.parent.is_dir() else []
        near = nearest(name, there) if there else "Give one that save_pretrained() wrote, or a name on the Hugging Face hub."
        yield f"{key}={name}: no such folder. {near}"
        return
    if lacking := [group[0] for group in wanted if not any((folder / file).is_file() for file in group)]:
        yield (
            f"{key}={name} lacks {' and '.join(lacking)}; it needs what save_pretrained() or `hf download NAME --local-dir "
            "FOLDER` write"
        )


def folder_errors(run_config: RunConfig) -> Iterator[str]:
    """A run folder that cannot be written, or whose disk has no room for a checkpoint."""
    place = standing(run_config.folder)
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield f"{run_config.folder}: the run cannot be written, as {place} is no folder that can be written in"
        return
    if run_config.settings["trainer"].get("fast_dev_run"):
        return
    free, weights = shutil.disk_usage(place).free, weights_bytes(run_config.settings)
    told = f"{place.resolve()} has {free / 1e6:,.0f} MB free"
    if free < max(LEAST_BYTES, weights):
        yield f"{told}, and a checkpoint of this run takes {max(LEAST_BYTES, weights) / 1e6:,.0f} MB or more; make room there"
        return
    keep = run_config.settings["checkpoint"].get("keep", 2)
    needed = ((keep if isinstance(keep, int) else 2) + MORE) * STATES * weights
    if is_main_process() and free < max(SCARCE_BYTES, needed):
        all_of_them = f", and its checkpoints may take {needed / 1e6:,.0f} MB" if weights else ""
        log.warning("%s%s; a run whose disk is full keeps its last whole checkpoint", told, all_of_them)


def standing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def weights_bytes(settings: Mapping[str, Any]) -> int:
    """Of the pretrained weights in a folder on this machine; 0 of others."""
    checkpoint = settings["model"].get("checkpoint")
    folder = Path(str(checkpoint)).expanduser()
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if checkpoint and folder.is_dir() else 0


def tracker_errors(name: str, chosen: Mapping[str, Any]) -> Iterator[str]:
    """A tracker whose package is missing, or whose settings its server would refuse."""
    kind = str(chosen.get("_target_", "")).rpartition(".")[2]
    if kind in PACKAGES and importlib.util.find_spec(kind) is None:
        yield f"logger={name}: {kind} is not installed; {PACKAGES[kind]}, or take another tracker"
    if kind == "wandb":
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode not in WANDB_MODES:
            yield f"WANDB_MODE={mode} in the environment is none of {', '.join(WANDB_MODES[:4])}; unset WANDB_MODE, or set one"
        project = chosen.get("project")
        if isinstance(project, str) and (not project or len(project) > 128 or NOT_IN_A_PROJECT & set(project)):
            yield f"logger.{name}.project={project}: W&B wants 1 to 128 characters, and none of / \\ # ? % :"


def checkpoint_errors(run_config: RunConfig) -> Iterator[str]:
    """A run that is gone on with, but whose checkpoints cannot be read or are of another net."""
    try:
        path, _ = find_intact(run_config.folder)
    except InputError as error:
        yield str(error)
        return
    if path is not None:
        ours = metadata_of(load_checkpoint(path), path)
        yield from net_errors(run_config, ours["settings"], path, from_plain(ours["data_info"]))


def net_errors(run_config: RunConfig, before: Mapping[str, Any], path: Path, data_info: DataInfo) -> Iterator[str]:
    """A net that the weights of a checkpoint are not of; where it would have to be fetched, the weights are compared later."""
    theirs, ours = (str(settings["model"].get("_target_")) for settings in (before, run_config.settings))
    if theirs != ours:
        theirs, ours = (name.rpartition(".")[2] for name in (theirs, ours))
        yield f"model: {path} holds the weights of {theirs}, not of {ours}; train the new net as a new run, without resume"
    elif before["model"] != run_config.settings["model"] and not run_config.settings["model"].get("checkpoint"):
        try:
            with torch.device("meta"):  # shapes without numbers
                module = build_module(run_config.settings, data_info)
            check_fits(module, path)
        except InputError as error:
            yield from [str(error)] if str(path) in str(error) else []
        except Exception:  # a net of the user's own that wants more than shapes while it is made
            log.debug("the net could not be made without numbers", exc_info=True)
