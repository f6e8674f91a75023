"""`Run`: the results, config, curves, model and predictions of a run, from memory or from its directory."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.config.atomic_file import read_json
from arclight.config.compose import overrides_of
from arclight.errors import InputError, nearest
from arclight.runs.run_directory import read_config, read_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from arclight.checkpoint.contents import Restored
    from arclight.inference.pipeline import Record
    from arclight.inference.predictor import Predictor
    from arclight.metrics.records import Prediction

    Column = NDArray[np.float64]


class Run:
    """A run and its directory, as `arclight.run` and `arclight.load_run` return it. Files are read when first asked for.

    Args:
        folder: the run directory.
        checkpoint: the file whose model is loaded; None takes the best, else the last.
        results: what results.json holds, where this process trained the run.
        model: the LightningModule with its best weights, where this process trained it.
    """

    def __init__(
        self, folder: Path, checkpoint: Path | None = None, *, results: dict[str, Any] | None = None, model: Any = None
    ) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self._last_predictor: tuple[tuple[str, int], Predictor] | None = None
        if results is not None:
            self.results = results
        if model is not None:
            self.model = model

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json: status, scores, speed; empty where there is no such file."""
        return read_results(self.folder)

    @property
    def status(self) -> str:
        """One of "running", "finished", "diverged", "failed", "interrupted"."""
        return str(self.results.get("status", "running"))

    @property
    def score(self) -> float:
        """The best value of the monitored metric, which sweeps optimize; nan when nothing was validated."""
        value = self.results.get(str(self.results.get("monitor")))
        return math.nan if value is None else float(value)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config of the run; raises InputError when config.yaml is missing or damaged."""
        if not (config := read_config(self.folder)):
            raise InputError(f"{self.folder / 'config.yaml'} cannot be read: the run was stopped while writing it")
        return config

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides on the command line, secrets left out."""
        return overrides_of(self.folder)

    @functools.cached_property
    def metrics(self) -> dict[str, Column]:
        """The columns of metrics.csv, float64 (rows,), nan in empty cells, as `pandas.DataFrame(run.metrics)` takes them."""
        import numpy as np

        path = self.folder / "metrics.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            raise InputError(f"{path}: no such file; it is written from the first log on, unless logger=none") from None
        names = [name for name in rows[0] if name] if rows else []
        return {name: np.array([to_float(row[name]) for row in rows]) for name in names}

    def curve(self, metric: str) -> tuple[Column, Column]:
        """Returns the steps and the values of a metric, to plot; raises InputError when it was not logged."""
        if metric not in self.metrics:
            raise InputError(f"{metric} was not logged. {nearest(metric, self.metrics)}")
        values = self.metrics[metric]
        is_logged = values == values  # False for nan
        return self.metrics["step"][is_logged], values[is_logged]

    @functools.cached_property
    def restored(self) -> Restored:
        """The model, data info and config in the checkpoint; raises InputError when the run has no checkpoint."""
        from arclight.checkpoint.contents import restore  # imports torch

        return restore(self.checkpoint or self.folder)

    @functools.cached_property
    def model(self) -> Any:
        """The LightningModule of the checkpoint, in eval mode; raises as `restored` does."""
        return self.restored.module

    def predict(
        self,
        items: Any,
        *,
        batch_size: int = 32,
        top_k: int | None = None,
        device: str = "auto",
        skip_errors: bool = False,
    ) -> list[Record]:
        """Returns what the model predicts for new items: a record of plain values for each, in order.

        Args:
            items: one item or several. Images: paths, bytes of files, PIL images, uint8 arrays. Texts: str, lists of words,
                `pathlib.Path` of files. Other models: arrays or paths of them, whose rows are items; a tuple or dict of arrays
                for several inputs. A path may be a directory or a pattern with *.
            batch_size: items in a forward pass; longer texts take several.
            top_k: most probable labels that are listed; None is 5 for images and 1 for words.
            device: "auto" is what the run trained on; "cpu", "cuda", "cuda:1", "mps".
            skip_errors: whether an item that cannot be read becomes {"source": ..., "error": ...} instead of an exception.

        Returns:
            Records as the pipeline of the model documents them, such as `arclight.images.inference.ImagePipeline`.

        Raises:
            InputError: when an item cannot be read, the run has no checkpoint, or this machine lacks the device.
        """
        is_one = isinstance(items, str | bytes | Path | Mapping) or not isinstance(items, Iterable) or hasattr(items, "shape")
        stream = self.predict_stream([items] if is_one else items, batch_size=batch_size, top_k=top_k, device=device)
        records = []
        for record in stream:
            if "error" in record and not skip_errors:
                raise InputError(f"{record['source']}: {record['error']}")
            records.append(record)
        return records

    def predict_stream(
        self, items: Iterable[Any], *, batch_size: int = 32, top_k: int | None = None, device: str = "auto"
    ) -> Iterator[Record]:
        """Yields what `predict` returns, with memory for a few batches only; an item that cannot be read has an "error"."""
        from arclight.inference.pipeline import BadItem, read_items

        predictor = self._predictor(device, batch_size)
        for found in predictor.predict(read_items(predictor.pipeline, items), top_k=top_k):
            yield {"source": found.source, "error": found.problem} if isinstance(found, BadItem) else found

    def _predictor(self, device: str, batch_size: int) -> Predictor:
        """Returns the predictor on a device; the last one is kept, because choosing a device costs more than a prediction."""
        from arclight.inference.predictor import Predictor  # imports torch

        if self._last_predictor is None or self._last_predictor[0] != (device, batch_size):
            self._last_predictor = (device, batch_size), Predictor(self.restored, device=device, batch_size=batch_size)
        return self._last_predictor[1]

    @functools.cached_property
    def predictions(self) -> list[Prediction]:
        """The prediction for each test sample, in the order of the split; raises InputError when the run was not tested."""
        from arclight.metrics.records import read_predictions

        return read_predictions(self.folder / "predictions.jsonl")

    def misclassified(self, num: int = 24) -> list[Prediction]:
        """Returns the `num` most confident errors on the test split, highest confidence first; raises as `predictions` does."""
        from arclight.metrics.error_analysis import most_confident_errors

        return most_confident_errors(self.predictions, num)

    @functools.cached_property
    def pictured_errors(self) -> list[dict[str, Any]]:
        """The most confident errors in mistakes.json, each with its preview; empty without the file."""
        errors = read_json(self.folder / "mistakes.json").get("mistakes")
        return errors if isinstance(errors, list) else []


def to_float(cell: str | None) -> float:
    """Returns the number in a cell; nan for an empty or damaged one."""
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
