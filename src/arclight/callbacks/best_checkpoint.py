"""Callbacks: the checkpoint of the best epoch, what the user chose, the scores of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from arclight.config.instantiate import build, parameters_of
from arclight.errors import InputError
from arclight.modules.supervised import Monitor


def best_checkpoint(folder: Path, monitor: Monitor) -> ModelCheckpoint:
    """Keeps `best.ckpt` by the monitored metric in `folder`; a callback of its own beside `LastCheckpoint`."""
    return ModelCheckpoint(
        dirpath=folder, filename="best", monitor=monitor.metric, mode=monitor.mode, enable_version_counter=False
    )


def build_callbacks(chosen: Mapping[str, Any], monitor: Monitor) -> list[Callback]:
    """The callbacks of the config, by name; one that takes `monitor` and `mode` gets the task's unless the config says else.

    Raises:
        InputError: when a callback's target or arguments are wrong.
    """
    callbacks = []
    for name, settings in chosen.items():
        path = f"callbacks.{name}"
        if not isinstance(settings, Mapping) or "_target_" not in settings:
            raise InputError(f"{path}={settings!r} must hold a _target_ and its arguments; ~callbacks.{name} leaves it out")
        taken = parameters_of(str(settings["_target_"]), path)
        offered = {"monitor": monitor.metric, "mode": monitor.mode}
        given = {key: value for key, value in offered.items() if key in taken and key not in settings}
        callbacks.append(build(settings, path, given))
    return callbacks


class EpochScores(Callback):
    """Keeps the validation scores of every epoch, so that those of the best one can be told afterwards."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self._monitor = monitor
        self._by_epoch: dict[int, dict[str, float]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._by_epoch[trainer.current_epoch] = scores_of(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"by_epoch": self._by_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._by_epoch = dict(state_dict["by_epoch"])

    @property
    def best(self) -> dict[str, float]:
        """The scores of the epoch that the monitored metric prefers, the earliest of equals; empty before any."""
        if not self._by_epoch:
            return {}
        sign = 1 if self._monitor.mode == "max" else -1
        return max(self._by_epoch.values(), key=lambda scores: sign * scores[self._monitor.metric])


def scores_of(trainer: Trainer) -> dict[str, float]:
    """The newest validation scores."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
