"""Evaluates a trained run, or a checkpoint of any origin, on a split."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from arclight import hardware
from arclight.checkpoint.contents import Restored, restore
from arclight.config import trust
from arclight.config.locations import OUTPUTS
from arclight.config.renamed import rename_settings
from arclight.console.terminal import printable, silence_lightning
from arclight.errors import InputError
from arclight.interfaces import standard_name
from arclight.modules.supervised import Scores
from arclight.report.config_diff import default_settings
from arclight.runs.build import build_data
from arclight.runs.run_directory import HARMLESS

log = logging.getLogger(__name__)


def evaluate(run_or_checkpoint: str, overrides: dict[str, Any], *, split: str = "test") -> Scores:
    """Returns the scores of a trained model, on the data it was trained with unless overridden.

    Args:
        run_or_checkpoint: run directory, checkpoint file, or `latest`.
        overrides: settings of the data, such as {"root": "elsewhere"}.
        split: "test" or "val".

    Raises:
        InputError: when there is no such run, the data does not fit its model, or a path in the config of a checkpoint that is
            not in outputs/ is not overridden.
    """
    restored = restore(run_or_checkpoint)
    settings = rename_settings({**restored.settings, "data": data_settings(restored, overrides)})
    data: Any = build_data(settings, workers=0, is_trusted=False) if settings["data"] else None
    if restored.data_info is not None:
        data.data_info = restored.data_info
        data.prepare_data()
    one_process = {"devices": 1, "num_nodes": 1, "strategy": "auto"}  # whatever it was trained in
    requested = {**hardware.requested_settings(restored.settings), **one_process}
    hardware_info = hardware.probe()
    try:
        decisions = hardware.plan(hardware_info, requested)
    except InputError as error:  # trained on another machine
        log.warning("%s; evaluated with what this machine has", error)
        decisions = hardware.plan(hardware_info, one_process)
    hardware.apply_backend_settings(decisions)
    with silence_lightning(HARMLESS):
        trainer = Trainer(
            **hardware.for_trainer(decisions),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loop = {"test": trainer.test, "val": trainer.validate}[split]
        logged = loop(restored.module, datamodule=data, verbose=False)
    scores: Scores | None = getattr(restored.module, "scores", None)
    if isinstance(scores, Scores):
        return scores
    metrics = {standard_name(split, name): value for of_loader in logged for name, value in of_loader.items()}
    named = {name.removeprefix(f"{split}/"): float(value) for name, value in metrics.items()}
    return Scores(named, per_class={}, tables=(), labels=(), counts=[])


def data_settings(restored: Restored, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `data` settings of a checkpoint with overrides such as {"root": "x"}.

    The paths of a checkpoint that is not in outputs/ are somebody else's: this user's defaults replace them.

    Raises:
        InputError: for a path that has no default; it names what to type.
    """
    settings = copy.deepcopy(restored.settings["data"])
    if not restored.path.resolve().is_relative_to(OUTPUTS.resolve()):
        defaults = default_settings(restored.data, restored.model).get("data") or {}
        settings, paths, missing = trust.without_paths(settings, defaults, "data")
        paths = {key: value for key, value in paths.items() if key.removeprefix("data.") not in overrides}
        origin = f"{restored.path} is not in {OUTPUTS}/, so that paths in it are not used"
        if paths and {*missing} & {*paths}:
            raise InputError(f"{origin}; type those that you trust, or others: {trust.typed(paths)}", key=next(iter(paths)))
        if paths:
            log.warning(printable(f"{origin}, but those of conf/; if you trust them, type: {trust.typed(paths)}"))
    for key, value in overrides.items():
        *parents, name = key.split(".")
        node = settings
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError(f"data.{key}: data.{parent}={node} has no keys", key=f"data.{key}")
        node[name] = value
    return settings
