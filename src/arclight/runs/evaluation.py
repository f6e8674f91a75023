"""Evaluates a trained run, or a checkpoint of any origin, on a split: as it is, and damaged by degrees."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer

from arclight import hardware
from arclight.checkpoint.contents import Restored, restore
from arclight.config import trust
from arclight.config.locations import OUTPUTS
from arclight.config.renamed import rename_settings
from arclight.console.terminal import printable, silence_lightning
from arclight.data.datamodule import DataModule, EvaluatedSplit
from arclight.errors import InputError, first_line
from arclight.inference.predictor import NO_OUTPUT, is_own, plan_device
from arclight.interfaces import standard_name
from arclight.modules.supervised import Scores
from arclight.report.config_diff import default_settings
from arclight.runs.build import build_data
from arclight.runs.evaluation_files import write_evaluation
from arclight.runs.run_directory import HARMLESS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A restored model, its data and a trainer, ready to be evaluated."""

    restored: Restored
    data: Any  # a LightningDataModule; None where the module has the loaders
    trainer: Trainer
    split: EvaluatedSplit

    def scores(self) -> Scores:
        """Returns the scores on the split."""
        loop = {"test": self.trainer.test, "val": self.trainer.validate}[self.split]
        with silence_lightning(HARMLESS):
            logged = loop(self.restored.module, datamodule=self.data, verbose=False)
        scores: Scores | None = getattr(self.restored.module, "scores", None)
        if isinstance(scores, Scores):
            return scores
        metrics = {standard_name(self.split, name): value for of_loader in logged for name, value in of_loader.items()}
        named = {name.removeprefix(f"{self.split}/"): float(value) for name, value in metrics.items()}
        return Scores(named, per_class={}, tables=(), labels=(), counts=[])

    def damaged_scores(self) -> Iterator[tuple[str, float, Scores]]:
        """Yields kind, strength and scores of each perturbation of the data.

        Raises:
            InputError: when the data offers none.
        """
        perturbations: Mapping[str, tuple[float, ...]] = getattr(self.data, "perturbations", {})
        if not perturbations:
            raise InputError(
                f"--robustness: {type(self.data).__name__} offers no perturbations; images and tagged text do "
                "(`perturbations` and `perturb` in src/arclight/interfaces.py)"
            )
        for kind, strengths in perturbations.items():
            for strength in strengths:
                self.data.perturb(kind, strength)
                yield kind, strength, self.scores()
        self.data.perturb(None)


def evaluate(
    run_or_checkpoint: str,
    overrides: dict[str, Any],
    *,
    split: EvaluatedSplit = "test",
    folder: Path | None = None,
    device: str = "auto",
) -> Scores:
    """Returns the scores of a trained model, on the data it was trained with unless overridden.

    On the device and in the precision of the training they are those of its own test, to the last digit.

    Args:
        run_or_checkpoint: run directory, checkpoint file, or `latest`.
        overrides: settings of the data, such as {"root": "elsewhere"}.
        split: "test" or "val".
        folder: directory, as of `evaluation_dir`, for scores, predictions and report; None writes nothing.
        device: "auto" is what the run trained on; "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: as `prepare`.
    """
    prepared = prepare(run_or_checkpoint, overrides, split=split, device=device)
    scores = prepared.scores()
    if folder is not None:
        settings = {**prepared.restored.settings}
        settings["data"] = {**(settings["data"] or {}), **overrides}
        write_evaluation(folder, prepared.restored, scores, prepared.data, settings=settings, split=split)
    return scores


def prepare(run_or_checkpoint: str, overrides: Mapping[str, Any], *, split: EvaluatedSplit, device: str = "auto") -> Evaluation:
    """Returns what `evaluate` evaluates; its arguments are those of `evaluate`.

    Raises:
        InputError: when there is no such run, the data does not fit its model, this machine lacks the device, or a path in the
            config of a checkpoint that is not in outputs/ is not overridden.
    """
    restored = restore(run_or_checkpoint)
    data = load_data(restored, overrides, split)
    decisions = plan_device(restored, device)
    with silence_lightning(HARMLESS):
        trainer = Trainer(**hardware.for_trainer(decisions), **NO_OUTPUT)
    return Evaluation(restored, data, trainer, split)


def is_other_data(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    """Returns whether overrides of `data` name other files than those of training, and not how much of them is held out."""
    places: dict[str, Callable[[Any], Any]] = {"root": lambda value: Path(str(value)).expanduser().resolve(), "train": str}
    others = [key for key, plain in places.items() if key in overrides and plain(overrides[key]) != plain(settings.get(key))]
    return bool(others) and not overrides.keys() & {"validation", "test", "holdout"}


def load_data(
    restored: Restored, overrides: Mapping[str, Any], split: EvaluatedSplit | None = "test"
) -> LightningDataModule | None:
    """Returns the data module of a restored run with these `data` settings changed, prepared; None where the run has none.

    `split` is the only one that is needed, None for all of them.

    Raises:
        InputError: when the data cannot be built or does not fit the model, or for a path that is not trusted.
    """
    settings = rename_settings({**restored.settings, "data": data_settings(restored, overrides)})
    if not settings["data"]:
        return None
    try:
        data: Any = build_data(settings, workers=0, is_trusted=False)
    except InputError as error:
        raise InputError(f"{restored.path}: {error}", key=error.key) from error
    except Exception as error:  # of any class: values of the right type that the constructor refuses
        problem = f"no data can be built from its config ({type(error).__name__}: {first_line(error)})"
        raise InputError(f"{restored.path}: {problem}") from error
    if isinstance(data, DataModule):
        data.evaluated_split = split
        data.is_other_data = is_other_data(restored.settings["data"], overrides)
    if restored.data_info is not None:
        data.data_info = restored.data_info
        data.prepare_data()
    return data


def parse_overrides(texts: Sequence[str], verb: str) -> dict[str, Any]:
    """Returns the `data` settings of overrides such as "data.root=elsewhere"; raises InputError for those of another kind."""
    overrides = {}
    for override in texts:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("data."):
            raise InputError(f"'{override}' must have the form data.KEY=VALUE: {verb} changes data settings only")
        overrides[key.removeprefix("data.")] = yaml.safe_load(value)
    return overrides


def data_settings(restored: Restored, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `data` settings of a checkpoint with overrides such as {"root": "x"}.

    The paths of a checkpoint that is not in outputs/ are somebody else's: this user's defaults replace them.

    Raises:
        InputError: for a path that has no default; it names what to type.
    """
    settings = copy.deepcopy(restored.settings["data"])
    if not is_own(restored):
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
