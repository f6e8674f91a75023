"""A run from its folder, to look into: config, numbers, curves, model, predictions, and where it is wrong."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arclight.config.compose import overrides_of
from arclight.config.locations import find_run
from arclight.errors import InputError, nearest
from arclight.metrics.confident_errors import most_confident_errors
from arclight.metrics.prediction_file import Prediction, read_predictions
from arclight.runs.run_directory import results_of, settings_of

if TYPE_CHECKING:
    from arclight.checkpoint.contents import Restored

Column = NDArray[np.float64]


@dataclass(frozen=True)
class LoadedRun:
    """A run in `folder`. Everything is read when it is first asked for; a part that the run has not left says so then.

    `checkpoint` is the file whose model is meant; None takes the best, else the last.
    """

    folder: Path
    checkpoint: Path | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Every setting that the run was made with.

        Raises:
            InputError: when config.yaml is half written.
        """
        settings = settings_of(self.folder)
        if not settings:
            raise InputError(f"{self.folder / 'config.yaml'} cannot be read: the run was stopped while it was written")
        return settings

    @property
    def overrides(self) -> tuple[str, ...]:
        """What was typed after `python train.py`."""
        return overrides_of(self.folder)

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """What results.json holds: status, scores, speed; empty where it is not there."""
        return results_of(self.folder)

    @functools.cached_property
    def metrics(self) -> dict[str, Column]:
        """metrics.csv by column, float64 (rows,), nan where a row has no value; `pandas.DataFrame(run.metrics)` takes it.

        Raises:
            InputError: when there is no such file.
        """
        path = self.folder / "metrics.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            raise InputError(
                f"{path}: no such file; a run with logger=none leaves none, any other after its first log"
            ) from None
        names = [name for name in rows[0] if name] if rows else []
        return {name: np.array([to_number(row[name]) for row in rows]) for name in names}

    def curve(self, metric: str) -> tuple[Column, Column]:
        """Steps and values of one metric, as plotting wants them.

        Raises:
            InputError: when nothing of that name was logged.
        """
        if metric not in self.metrics:
            raise InputError(f"{metric} was not logged. {nearest(metric, self.metrics)}")
        values = self.metrics[metric]
        there = ~np.isnan(values)
        return self.metrics["step"][there], values[there]

    @functools.cached_property
    def restored(self) -> Restored:
        """Model, facts of its data and config, from the checkpoint alone.

        Raises:
            InputError: when the run has none.
        """
        from arclight.checkpoint.contents import restore  # torch loads here

        return restore(self.checkpoint or self.folder)

    @property
    def model(self) -> Any:
        """The LightningModule of the checkpoint, in eval mode."""
        return self.restored.module

    @functools.cached_property
    def predictions(self) -> list[Prediction]:
        """Each test sample once, in the order of the split: truth, prediction, confidence.

        Raises:
            InputError: when the run has not tested.
        """
        return read_predictions(self.folder / "predictions.jsonl")

    def mistakes(self, num: int = 24) -> list[Prediction]:
        """The test samples that the model was most sure of and wrong about, the surest first; raises as `predictions`."""
        return most_confident_errors(self.predictions, num)

    @functools.cached_property
    def pictured_errors(self) -> list[dict[str, Any]]:
        """What mistakes.json holds of the surest mistakes: each with its image (PNG in base64) or words; empty without it."""
        try:
            mistakes = json.loads((self.folder / "mistakes.json").read_text(encoding="utf-8"))["mistakes"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return mistakes if isinstance(mistakes, list) else []


def load_run(run: str | Path) -> LoadedRun:
    """The run of a folder, of a checkpoint file in it, or `latest`.

    Raises:
        InputError: when there is none.
    """
    path = Path(run)
    return LoadedRun(find_run(str(run)), path if path.suffix == ".ckpt" else None)


def to_number(cell: str | None) -> float:
    """The number in a cell; nan in one that is empty, cut off or holds something else."""
    try:
        return float(cell or "nan")
    except ValueError:
        return float("nan")
