"""What a checkpoint holds, and the model back from the file alone: no data set, no conf/, no hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from arclight.checkpoint import atomic_write, sharded
from arclight.config.instantiate import build, parameters_of
from arclight.config.redaction import without_secrets
from arclight.config.renamed import rename_checkpoint
from arclight.data.info import from_plain, to_plain
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, first_line, nearest
from arclight.interfaces import DataInfo
from arclight.modules.supervised import SupervisedModule

VERSION, FIRST_VERSION = 2, 1  # the first is that of arclight 0.1
OURS = ("settings", "options", "data_info", "blueprint")  # what a checkpoint of this version holds besides it
REBUILT_FROM = ("data", "model", "module", "optimizer", "scheduler")  # settings without which there is no model

log = logging.getLogger(__name__)


class CheckpointContents(Callback):
    """Adds to every checkpoint what the model is rebuilt from: config (no secrets), the data's facts, the net's blueprint."""

    def __init__(self, settings: Mapping[str, Any], data: str, model: str) -> None:
        super().__init__()
        self.settings: dict[str, Any] = without_secrets(settings)
        self.options = {"data": data, "model": model}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, SupervisedModule)
        checkpoint["arclight"] = {
            "version": VERSION,
            "settings": self.settings,
            "options": self.options,
            "data_info": to_plain(pl_module.data_info),
            "blueprint": getattr(pl_module.net, "blueprint", {}),
        }


@dataclass(frozen=True)
class Restored:
    """A trained model and what it was trained with; `module` is the LightningModule, in eval mode."""

    module: SupervisedModule
    data_info: DataInfo
    settings: dict[str, Any]
    data: str
    model: str
    path: Path


def build_module(
    settings: Mapping[str, Any],
    data_info: DataInfo,
    *,
    blueprint: Mapping[str, Any] | None = None,
    channels_last: bool | None = None,
) -> SupervisedModule:
    """The LightningModule of a config, its net built for the data's facts.

    Args:
        settings: the whole config.
        data_info: the data's facts.
        blueprint: what overrides the net's settings when its weights come from a checkpoint.
        channels_last: the plan's choice, for a task that asks for it; None leaves it to the task.

    Raises:
        InputError: when any setting is wrong.
    """
    if channels_last is not None and "channels_last" in settings["module"]:
        raise InputError("module.channels_last is set by the plan for the hardware; write hardware.channels_last instead")
    net = build({**settings["model"], **(blueprint or {})}, "model", {"data_info": data_info})
    given: dict[str, Any] = {
        "data_info": data_info,
        "net": net,
        "make_optimizer": build(settings["optimizer"], "optimizer"),
        "scheduler": build(settings["scheduler"], "scheduler"),
    }
    if channels_last is not None and "channels_last" in parameters_of(settings["module"]["_target_"], "module"):
        given["channels_last"] = channels_last
    module: SupervisedModule = build(settings["module"], "module", given)
    return module


def restore(run: str | Path) -> Restored:
    """The model of a run folder, a checkpoint (the folder that strategy=fsdp writes is one, too), or `latest`.

    Raises:
        InputError: when there is no such checkpoint, or it is damaged or not one of ours.
    """
    path = find(run)
    contents = read(path)
    ours = ours_in(contents, path)
    try:
        data_info, settings, blueprint = from_plain(ours["data_info"]), dict(ours["settings"]), dict(ours["blueprint"])
        data, model = str(ours["options"]["data"]), str(ours["options"]["model"])
        state = {str(name): value for name, value in contents["state_dict"].items() if isinstance(value, torch.Tensor)}
        if absent := [group for group in REBUILT_FROM if not isinstance(settings.get(group), dict)]:
            raise KeyError(absent[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no whole checkpoint of arclight ({type(error).__name__}: {first_line(error)})") from error
    try:
        module = build_module(settings, data_info, blueprint=blueprint)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} holds the weights of another net than its config describes: {first_line(error)}") from error
    module.eval()
    return Restored(module, data_info, settings, data, model, path)


def load_weights(module: SupervisedModule, path: Path) -> None:
    """Gives a task the weights of a checkpoint, whole or spread over processes as the task's own are; raises as `read`."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    state: dict[str, Any] = read(path)["state_dict"]
    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))


def ours_in(contents: Any, path: Path, *, is_resumed: bool = False) -> dict[str, Any]:
    """What `CheckpointContents` put into a checkpoint.

    Raises:
        InputError: when it is not one of ours, or of another version.
    """
    ours = contents.get("arclight") if isinstance(contents, dict) else None
    if not isinstance(ours, dict) or "version" not in ours:
        raise InputError(f"{path} is no checkpoint of arclight: it holds no config and no facts of its data")
    if ours["version"] == FIRST_VERSION and not is_resumed:
        ours = {"version": VERSION, **rename_checkpoint(ours)}
    if ours["version"] == FIRST_VERSION:
        raise InputError(
            f"{path} was written by arclight 0.1, whose runs this version evaluates and reports but cannot resume; finish it "
            "with arclight 0.1, or train a new one without resume"
        )
    if ours["version"] != VERSION:
        raise InputError(
            f"{path} is of checkpoint version {ours['version']}; this arclight reads version {VERSION}, and {FIRST_VERSION} to "
            "evaluate; open it with the arclight that wrote it"
        )
    if absent := [key for key in OURS if key not in ours]:
        raise InputError(f"{path} is no whole checkpoint of arclight: it holds no {' and no '.join(absent)}")
    return ours


def last_checkpoint(folder: Path) -> Path:
    """Where a run keeps the state that it can go on from."""
    return folder / "checkpoints" / atomic_write.LAST


def newest_intact(folder: Path) -> Path | None:
    """The checkpoint that the run of this folder goes on from: the last, else the newest of those before; None of a new run.

    A damaged one is told and put aside under another name, so that the good one is not overwritten with it.

    Raises:
        InputError: when there are some, but all of them are damaged, or the newest whole one is of another version.
    """
    path, problems = find_intact(folder)
    for damaged, told in problems.items():
        log.warning("%s; the run goes on from %s", told, path)
        if is_main_process() and damaged.exists():
            aside = damaged.with_name(f"{damaged.name}.damaged")
            atomic_write.remove(aside)
            damaged.replace(aside)
    return path


def find_intact(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """As `newest_whole`, and what is wrong with those that are newer; all stay as they are."""
    last = last_checkpoint(folder)
    there = [path for path in (last, *atomic_write.earlier(last)) if path.exists()]
    problems: dict[Path, str] = {}
    if not any(map(is_checkpoint, there)):
        return None, problems  # at most a folder whose first save was cut short
    for path in there:
        try:
            contents = read(path)
        except InputError as problem:
            problems[path] = str(problem)
            continue
        ours_in(contents, path, is_resumed=True)
        return path, problems
    begin = f"nothing is left to go on from; put a copy in its place, or begin anew without resume ({folder} stays)"
    raise InputError("\n".join([*problems.values(), begin]))


def steps_done(path: Path | None) -> int:
    """Optimizer steps that this checkpoint has behind it; 0 of none."""
    return 0 if path is None else int(read(path)["global_step"])


def check_fits(module: SupervisedModule, path: Path) -> None:
    """Looks whether the weights of a checkpoint are those of this task's net.

    Raises:
        InputError: naming the first weights that differ.
    """
    saved, wanted = (
        {name: tuple(value.shape) for name, value in state.items()} for state in (read(path)["state_dict"], module.state_dict())
    )
    different = [name for name in sorted({*saved, *wanted}) if saved.get(name) != wanted.get(name)]
    if different:
        shown = "".join(f"\n  {name}: {saved.get(name, 'none')} -> {wanted.get(name, 'none')}" for name in different[:5])
        raise InputError(
            f"{path} holds the weights of another net, {len(different)} of {len(wanted)} differ (there -> now):{shown}\n"
            "train the new net as a new run, without resume"
        )


def read(path: Path) -> Any:
    """What a checkpoint holds, on the CPU; optimizer states may be without values, since nobody here goes on training.

    Raises:
        InputError: when it is damaged, or a part of it lacks.
    """
    if path.is_dir():
        sharded.check(path)
        return sharded.read(path, leave_out=("optimizer_states", "current_model_state"))
    atomic_write.check(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different class for each way in which a file can be broken
        raise InputError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from error


def began(checkpoint: Path) -> tuple[float, float]:
    """Orders checkpoints by when their runs began last, as `resume=latest` does, then by their own time."""
    config = checkpoint.parent.parent / "config.yaml"
    return config.stat().st_mtime if config.is_file() else 0.0, checkpoint.stat().st_mtime


def is_checkpoint(path: Path) -> bool:
    """Whether a checkpoint lies there whole: a file, or a folder whose save came to its end."""
    return path.is_file() or (path / sharded.CONTENTS).is_file()


def find(run: str | Path, outputs: Path = Path("outputs")) -> Path:
    """The checkpoint that RUN stands for: itself, the best (else the last) of a run folder, or of the newest run.

    Raises:
        InputError: when there is none; names what is there.
    """
    if str(run) == "latest":
        # grids keep their runs one folder deeper
        paths = [*outputs.glob("*/*/checkpoints/*.ckpt"), *outputs.glob("*/*/*/checkpoints/*.ckpt")]
        if not (files := [path for path in paths if is_checkpoint(path)]):
            raise InputError(f"latest: {outputs.resolve()} holds no run with a checkpoint; train one with `python train.py`")
        run = max(files, key=began).parent.parent
    path = Path(run)
    if is_checkpoint(path):
        return path
    if path.suffix == ".ckpt" and path.is_dir():
        raise InputError(f"{path} is no whole checkpoint: {sharded.CONTENTS} lacks; its first save was cut short")
    if not path.is_dir():
        siblings = [str(other) for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such run folder or checkpoint file. {nearest(str(path), siblings) if siblings else ''}")
    for name in ("best", "last"):
        if is_checkpoint(checkpoint := path / "checkpoints" / f"{name}.ckpt"):
            return checkpoint
    raise InputError(f"{path} holds no checkpoints/best.ckpt and no checkpoints/last.ckpt: no epoch of this run has ended")
