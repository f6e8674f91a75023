"""What a checkpoint holds, which checkpoint a run has, and rebuilding a model from it without data set, conf/ or network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from arclight.checkpoint import atomic_write, sharded
from arclight.checkpoint.metadata import VERSION, corrupt, metadata_of
from arclight.config.groups import module_group
from arclight.config.instantiate import build, parameters_of
from arclight.config.redaction import without_secrets
from arclight.data.info import from_plain, to_plain
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, first_line, nearest
from arclight.interfaces import DataInfo
from arclight.optim.schedulers import build_scheduler, torch_scheduler

# Names under which a LightningModule's constructor takes the objects of other groups
NETS, OPTIMIZERS, SCHEDULERS = {"net", "model", "backbone"}, {"make_optimizer", "optimizer"}, {"scheduler", "lr_scheduler"}

log = logging.getLogger(__name__)


class CheckpointContents(Callback):
    """Adds to every checkpoint what the model is rebuilt from: config (without secrets), data info, blueprint of the net."""

    def __init__(self, settings: Mapping[str, Any], data: str, model: str) -> None:
        super().__init__()
        self.settings: dict[str, Any] = without_secrets(settings)
        self.options = {"data": data, "model": model}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        data_info = getattr(pl_module, "data_info", None)
        checkpoint["arclight"] = {
            "version": VERSION,
            "settings": self.settings,
            "options": self.options,
            "data_info": to_plain(data_info) if isinstance(data_info, DataInfo) else None,
            "blueprint": blueprint_of(pl_module, self.settings),
        }


def blueprint_of(module: LightningModule, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings with which the net is rebuilt: its own, or no pretrained weights, which the checkpoint replaces."""
    offered: Mapping[str, Any] | None = getattr(getattr(module, "net", None), "blueprint", None)
    if offered is not None:
        return offered
    is_pretrained = module_group(settings) == "module" and settings["model"].get("pretrained") is True
    return {"pretrained": False} if is_pretrained else {}


@dataclass(frozen=True)
class Restored:
    """A trained model in eval mode, and what it was trained with; `data_info` is None if its data module has none."""

    module: Any  # a LightningModule of any class
    data_info: DataInfo | None
    settings: dict[str, Any]
    data: str
    model: str
    path: Path

    @property
    def run_dir(self) -> Path | None:
        """The run directory that the checkpoint is in; None for one that lies elsewhere."""
        folder = self.path.parent.parent
        return folder if (folder / "config.yaml").is_file() else None


def build_module(
    settings: Mapping[str, Any],
    data_info: DataInfo | None,
    *,
    blueprint: Mapping[str, Any] | None = None,
    channels_last: bool | None = None,
    is_trusted: bool = True,
) -> Any:
    """Returns the LightningModule of a config. Net and module get those of our objects that their constructors accept.

    Args:
        settings: the whole config; InputError is raised for a wrong setting.
        data_info: of the data module.
        blueprint: overrides of the net's settings when its weights come from a checkpoint.
        channels_last: memory format chosen by the hardware plan; None leaves it to the module.
        is_trusted: whether the config is the user's own, not that of a checkpoint.

    Raises:
        InputError: when a setting is wrong.
    """
    group = module_group(settings)
    if channels_last is not None and "channels_last" in settings[group]:
        raise InputError(
            f"{group}.channels_last is set by the hardware plan; set hardware.channels_last instead",
            key=f"{group}.channels_last",
        )
    offers: dict[str, Any] = {"data_info": data_info, "channels_last": channels_last}
    target = settings[group].get("_target_", "")
    taken = parameters_of(target, group, is_trusted=is_trusted, arguments=settings[group]) if target else {}
    if group == "module" and (names := NETS & taken.keys()):
        net = {**settings["model"], **(blueprint or {})}
        built = _build_accepted(net, "model", {"data_info": data_info, **values_of_data(data_info)}, is_trusted=is_trusted)
        offers |= dict.fromkeys(names, built)
    for name in OPTIMIZERS & taken.keys() - settings[group].keys():
        offers[name] = build(settings["optimizer"], "optimizer", is_trusted=is_trusted)
    for name in SCHEDULERS & taken.keys() - settings[group].keys():
        offers[name] = build_scheduler(settings["scheduler"], is_trusted=is_trusted)
        if "make_optimizer" not in taken:  # a module of any origin calls it with its optimizer
            offers[name] = torch_scheduler(offers[name])
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Attribute '.*' is an instance of `nn.Module`"
        )  # `checkpoint.plain` leaves it out
        module = _build_accepted(settings[group], group, offers | values_of_data(data_info), is_trusted=is_trusted)
    if not isinstance(module, LightningModule):
        raise InputError(
            f"{group}: {target} is not a LightningModule; choose one with module=..., or name one in model._target_",
            key=f"{group}._target_",
        )
    return module


def values_of_data(data_info: DataInfo | None) -> dict[str, Any]:
    """Returns what a net that does not know us may take from the data."""
    num_classes = getattr(data_info, "num_classes", None)
    return {} if num_classes is None else {"num_classes": num_classes}


def _build_accepted(settings: Mapping[str, Any], path: str, offers: dict[str, Any], *, is_trusted: bool) -> Any:
    return build(settings, path, accepted(settings, path, offers, is_trusted=is_trusted), is_trusted=is_trusted)


def accepted(settings: Mapping[str, Any], path: str, offers: dict[str, Any], *, is_trusted: bool = True) -> dict[str, Any]:
    """Returns those of the objects, None left out, that the constructor named by `_target_` has a parameter for."""
    if "_target_" not in settings:  # `build` reports it
        return offers
    parameters = parameters_of(str(settings["_target_"]), path, is_trusted=is_trusted, arguments=settings)
    return {name: value for name, value in offers.items() if value is not None and name in parameters and name not in settings}


def restore(run: str | Path) -> Restored:
    """Returns the model of a run directory, a checkpoint, or `latest`; raises InputError if there is none or it is damaged."""
    path = find_checkpoint(run)
    contents = load_checkpoint(path)
    metadata = metadata_of(contents, path)
    settings, options = dict(metadata["settings"]), metadata["options"]
    try:
        data_info = None if metadata["data_info"] is None else from_plain(metadata["data_info"])
        state = {str(name): value for name, value in contents["state_dict"].items() if isinstance(value, torch.Tensor)}
    except (InputError, KeyError, AttributeError) as error:
        raise corrupt(path, first_line(error) if isinstance(error, InputError) else "it holds no state_dict") from error
    try:
        module = build_module(settings, data_info, blueprint=metadata["blueprint"], is_trusted=False)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # of any class: values of the right type that the constructors of nets refuse
        raise InputError(
            f"{path}: no model can be built from its config ({type(error).__name__}: {first_line(error)})"
        ) from error
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise InputError(f"{path} holds weights of a different net than its config describes: {first_line(error)}") from error
    module.eval()
    return Restored(module, data_info, settings, options["data"], options["model"], path)


def load_weights(module: LightningModule, path: Path) -> None:
    """Loads the weights of a checkpoint, sharded or not, into a module, sharded or not; raises as `load_checkpoint`."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    state: dict[str, Any] = load_checkpoint(path)["state_dict"]
    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))


def last_checkpoint(run_dir: Path) -> Path:
    """Returns the path of the checkpoint that a run resumes from."""
    return run_dir / "checkpoints" / atomic_write.LAST


def newest_intact(run_dir: Path) -> Path | None:
    """Returns the newest undamaged checkpoint to resume a run from, None for a new run.

    Logs damaged ones and renames them, so that they do not replace an intact one. Raises as `find_intact`.
    """
    path, problems = find_intact(run_dir)
    for damaged, problem in problems.items():
        log.warning("%s; resuming from %s", problem, path)
        if is_main_process() and damaged.exists():
            aside = damaged.with_name(f"{damaged.name}.damaged")
            atomic_write.remove(aside)
            damaged.replace(aside)
    return path


def find_intact(run_dir: Path) -> tuple[Path | None, dict[Path, str]]:
    """Returns the newest undamaged checkpoint, and the damage of each newer one; changes nothing.

    Raises:
        InputError: when all checkpoints are damaged, or the newest undamaged one has another version.
    """
    last = last_checkpoint(run_dir)
    existing = [path for path in (last, *atomic_write.find_previous(last)) if path.exists()]
    problems: dict[Path, str] = {}
    if not any(map(is_checkpoint, existing)):
        return None, problems  # at most a directory whose first save did not finish
    for path in existing:
        try:
            contents = load_checkpoint(path)
        except InputError as problem:
            problems[path] = str(problem)
            continue
        metadata_of(contents, path, is_resumed=True)
        return path, problems
    advice = f"no intact checkpoint is left; restore one from a copy, or start a new run without resume ({run_dir} stays)"
    raise InputError("\n".join([*problems.values(), advice]))


def steps_done(path: Path | None) -> int:
    """Returns the optimizer steps before a checkpoint, 0 without one."""
    return 0 if path is None else int(load_checkpoint(path)["global_step"])


def check_fits(module: LightningModule, path: Path) -> None:
    """Raises InputError, naming the first weights that differ in name or shape, if a checkpoint does not fit the module."""
    saved, current = (
        {name: tuple(value.shape) for name, value in state.items()}
        for state in (load_checkpoint(path)["state_dict"], module.state_dict())
    )
    different = [name for name in sorted({*saved, *current}) if saved.get(name) != current.get(name)]
    if different:
        lines = "".join(f"\n  {name}: {saved.get(name, 'none')} -> {current.get(name, 'none')}" for name in different[:5])
        raise InputError(
            f"{path} holds weights of a different net, {len(different)} of {len(current)} differ (saved -> now):{lines}\n"
            "train the new net in a new run, without resume"
        )


def load_checkpoint(path: Path) -> Any:
    """Returns the contents on the CPU, sharded optimizer states as meta tensors; raises InputError if damaged or incomplete."""
    if path.is_dir():
        sharded.check_sharded(path)
        return sharded.load_sharded(path, skip=("optimizer_states", "current_model_state"))
    atomic_write.check(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different class for each kind of damage
        raise sharded.unreadable(path, error) from error


def is_checkpoint(path: Path) -> bool:
    """Returns whether a complete checkpoint is there: a file, or a directory whose save has finished."""
    return path.is_file() or (path / sharded.CONTENTS).is_file()


def find_checkpoint(run: str | Path, outputs: Path = Path("outputs")) -> Path:
    """Returns the checkpoint for RUN: itself, or the best, else the last of a run directory; raises InputError if none."""
    if str(run) == "latest":
        run = latest_run(outputs)
    path = Path(run)
    if is_checkpoint(path):
        return path
    if path.suffix == ".ckpt" and path.is_dir():
        raise sharded.incomplete(path)
    if not path.is_dir():
        siblings = [
            str(other) for other in path.parent.glob("*") if other.suffix == ".ckpt" or (other / "config.yaml").is_file()
        ]
        raise InputError(f"{path}: no such run directory or checkpoint. {nearest(str(path), siblings) if siblings else ''}")
    for name in ("best", "last"):
        if is_checkpoint(checkpoint := path / "checkpoints" / f"{name}.ckpt"):
            return checkpoint
    raise InputError(f"{path} has no checkpoints/best.ckpt and no checkpoints/last.ckpt: no epoch of this run has finished")


def latest_run(outputs: Path) -> Path:
    """Returns the run directory with a checkpoint that was started last, as `resume=latest` orders them."""
    # multiruns have their runs one directory deeper
    paths = [*outputs.glob("*/*/checkpoints/*.ckpt"), *outputs.glob("*/*/*/checkpoints/*.ckpt")]
    if not (checkpoints := [path for path in paths if is_checkpoint(path)]):
        raise InputError(f"latest: {outputs.resolve()} holds no run with a checkpoint; train one with `python train.py`")

    def start_time(checkpoint: Path) -> tuple[float, float]:
        config = checkpoint.parent.parent / "config.yaml"
        return config.stat().st_mtime if config.is_file() else 0.0, checkpoint.stat().st_mtime

    return max(checkpoints, key=start_time).parent.parent
