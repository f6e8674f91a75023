"""Callbacks: the checkpoint of the best epoch, those of the config, the validation scores of every epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from arclight.config.instantiate import build, parameters_of
from arclight.errors import InputError
from arclight.interfaces import Monitor, standard_name

log = logging.getLogger(__name__)


def best_checkpoint(directory: Path, monitor: Monitor) -> ModelCheckpoint:
    """Returns the callback that saves `best.ckpt` by the monitored metric; independent of `LastCheckpoint`."""
    return ModelCheckpoint(
        dirpath=directory,
        filename="best",
        monitor=monitor.metric,
        mode=monitor.mode,
        enable_version_counter=False,
        save_on_train_epoch_end=True if monitor.metric.startswith("train") else None,
    )


class TopCheckpoints(ModelCheckpoint):
    """Saves the `save_top_k` best checkpoints beside `best.ckpt`, each named by its epoch and step; -1 keeps all."""

    def __init__(self, directory: Path, monitor: Monitor, save_top_k: int) -> None:
        super().__init__(
            dirpath=directory,
            filename="best-epoch_{epoch:03d}-step_{step}",
            auto_insert_metric_name=False,
            monitor=monitor.metric,
            mode=monitor.mode,
            save_top_k=save_top_k,
            save_on_train_epoch_end=True if monitor.metric.startswith("train") else None,
        )


def best_checkpoints(directory: Path, monitor: Monitor | None, save_top_k: int) -> list[Callback]:
    """Returns the callbacks that save the best checkpoints by the monitored metric; none where there is no such metric.

    Raises:
        InputError: when several are requested and there is no metric.
    """
    if monitor is None:
        if save_top_k != 1:
            raise InputError(
                f"checkpoint.save_top_k={save_top_k}: there is no metric to choose the best by; set monitor=NAME, one that the "
                "module logs",
                key="checkpoint.save_top_k",
            )
        return []
    others = [] if save_top_k == 1 else [TopCheckpoints(directory, monitor, save_top_k)]
    return [best_checkpoint(directory, monitor), *others]


def build_callbacks(configs: Mapping[str, Any], monitor: Monitor | None) -> list[Callback]:
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
        defaults: dict[str, Any] = {} if monitor is None else {"monitor": monitor.metric, "mode": monitor.mode}
        if monitor is not None and "monitor" not in config and not monitor.metric.startswith("train"):
            # a run may end before its first validation; after one, EpochScores reports a metric that was not logged
            defaults["strict"] = False
        needs_metric = "monitor" in accepted and accepted["monitor"].default is Parameter.empty
        if needs_metric and monitor is None and "monitor" not in config:
            log.warning("%s is off: it needs a metric; set monitor=NAME, one that the module logs", path)
            continue
        callbacks.append(build(config, path, {key: defaults[key] for key in defaults if key in accepted and key not in config}))
    return callbacks


class EpochScores(Callback):
    """Collects the validation scores of every epoch, for the results of the best one, else of the last."""

    def __init__(self, monitor: Monitor | None) -> None:
        super().__init__()
        self._monitor = monitor
        self._by_epoch: dict[int, dict[str, float]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        monitor, logged = self._monitor, trainer.callback_metrics
        if monitor is not None and monitor.metric not in logged and not monitor.metric.startswith("train"):
            raise InputError(
                f"monitor={monitor.metric}: the module has not logged it by its first validation; it logged "
                f"{', '.join(sorted(logged)) or 'nothing'}. Choose one of them with monitor=NAME, or monitor=none",
                key="monitor",
            )
        self._by_epoch[trainer.current_epoch] = scores_of(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = "" if self._monitor is None else self._monitor.metric
        if name.startswith("train") and name in trainer.callback_metrics:
            value = float(trainer.callback_metrics[name])
            self._by_epoch[trainer.current_epoch] = {**self._by_epoch.get(trainer.current_epoch, {}), name: value}

    def state_dict(self) -> dict[str, Any]:
        return {"by_epoch": self._by_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._by_epoch = dict(state_dict["by_epoch"])

    @property
    def best(self) -> dict[str, float]:
        """The scores of the best epoch by the monitored metric, the earliest of equals; empty before the first."""
        if not self._by_epoch:
            return {}
        monitor = self._monitor
        name = "" if monitor is None else standard_name("val", monitor.metric)
        if monitor is None or any(name not in scores for scores in self._by_epoch.values()):
            return self._by_epoch[max(self._by_epoch)]
        sign = 1 if monitor.mode == "max" else -1
        return max(self._by_epoch.values(), key=lambda scores: sign * scores[name])


def scores_of(trainer: Trainer) -> dict[str, float]:
    """Returns the metrics that were logged in the last validation, by their names in results.json."""
    results = trainer.fit_loop.epoch_loop.val_loop._results
    names = [results._forked_name(metric, on_step=False)[0] for metric in results.result_metrics if metric.meta.on_epoch]
    logged = {name: trainer.callback_metrics.get(name) for name in names}
    return {standard_name("val", name): float(value) for name, value in logged.items() if value is not None}
