"""Callbacks: the checkpoint of the best epoch, those of the config, the validation scores of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from arclight.config.instantiate import build, parameters_of
from arclight.errors import InputError
from arclight.interfaces import Monitor


def best_checkpoint(directory: Path, monitor: Monitor) -> ModelCheckpoint:
    """Returns the callback that saves `best.ckpt` by the monitored metric; independent of `LastCheckpoint`."""
    return ModelCheckpoint(
        dirpath=directory, filename="best", monitor=monitor.metric, mode=monitor.mode, enable_version_counter=False
    )


def build_callbacks(configs: Mapping[str, Any], monitor: Monitor) -> list[Callback]:
    """Builds the callbacks of the config, by name; one that takes `monitor` and `mode` gets the module's by default.

    Raises:
        InputError: when a callback's target or arguments are wrong.
    """
    callbacks = []
    for name, config in configs.items():
        path = f"callbacks.{name}"
        if not isinstance(config, Mapping) or "_target_" not in config:
            raise InputError(f"{path}={config!r} must have a _target_ and its arguments; remove it with ~callbacks.{name}")
        accepted = parameters_of(str(config["_target_"]), path)
        defaults = {"monitor": monitor.metric, "mode": monitor.mode}
        callbacks.append(build(config, path, {key: defaults[key] for key in defaults if key in accepted and key not in config}))
    return callbacks


class EpochScores(Callback):
    """Collects the validation scores of every epoch, for the results of the best one."""

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
        """The scores of the best epoch by the monitored metric, the earliest of equals; empty before the first."""
        if not self._by_epoch:
            return {}
        sign = 1 if self._monitor.mode == "max" else -1
        return max(self._by_epoch.values(), key=lambda scores: sign * scores[self._monitor.metric])


def scores_of(trainer: Trainer) -> dict[str, float]:
    """Returns the latest validation scores."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
