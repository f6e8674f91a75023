"""A run of TensorBoard: curves, config and final status; a resumed run has every row of metrics.csv once."""

from __future__ import annotations

import functools
import json
import logging
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import TensorBoardLogger

from arclight.config.atomic_file import read_json
from arclight.config.compose import flatten
from arclight.console.terminal import relative_path
from arclight.distributed.environment import is_main_process
from arclight.loggers.artifacts import error_images
from arclight.loggers.record import Record, Repeats, metrics_of, step_of


class ResumableTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger, with the config as a text and at the end as a row of the HPARAMS page with the scores.

    A resumed run purges what was recorded after its checkpoint, and writes the rows of the record that are missing.
    """

    def __init__(self, run_dir: Path, *, artifacts: Sequence[Literal["mistakes"]], record: Record) -> None:
        # the metrics of the first step have number 0, those of the steps after the checkpoint `after_step`, which images of the
        # step before may have, too
        first = record.after_step + 1 if record.after_step else 0
        recorded = recorded_scalars(run_dir / "tensorboard", first)
        purge_step = None if recorded is None else first
        super().__init__(run_dir, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step)
        self.artifacts = tuple(artifacts)
        self._repeats, self._tags = Repeats(recorded or ()), {tag for tag, _ in recorded or ()}
        silence_writer_threads()
        if is_main_process():
            _ = self.experiment  # purges now, not when the module first asks for it
            for row in record.rows:
                self.log_metrics(metrics_of(row), step_of(row))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._tags.update(metrics)
        super().log_metrics(self._repeats.new(metrics, step), step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, metrics: Any = None, step: int | None = None) -> None:
        super().log_hyperparams(params, metrics, step)
        values = params if isinstance(params, Mapping) else vars(params)
        self.experiment.add_text("run", "```\n" + json.dumps(values, indent=2, default=str) + "\n```")

    def location(self) -> str:
        return f"tensorboard --logdir {relative_path(Path(self.save_dir).parent)}"

    def upload_artifacts(self, run_dir: Path) -> None:
        """Writes status and scores, as a row of HPARAMS too, and the most confident errors that have an image.

        Scores of the test are written unless the module has logged them; those of the best checkpoint as `best/val/<metric>`.
        """
        import numpy as np
        from torch.utils.tensorboard.summary import hparams

        results = read_json(run_dir / "results.json")
        status, step = str(results.get("status", "")), int(results.get("steps") or 0)
        self.experiment.add_text("status", status)
        settings = {key: plain(value) for key, value in flatten(self.hparams) if not key.startswith(("machine", "packages"))}
        numbers = {key: value for key, value in results.items() if value is not None}
        scores = {f"best/{key}": value for key, value in numbers.items() if key.startswith("val/")}
        scores |= {key: value for key, value in numbers.items() if key.startswith("test/")}
        for summary in hparams({**settings, "status": status}, scores):
            self.experiment.file_writer.add_summary(summary)
        self.log_metrics({key: value for key, value in scores.items() if key not in self._tags}, step)
        for number, (image, caption) in enumerate(error_images(run_dir) if "mistakes" in self.artifacts else ()):
            pixels = np.asarray(image.convert("RGB"))
            self.experiment.add_image(f"mistakes/{number:02} {caption}", pixels, step, dataformats="HWC")
        self.experiment.flush()


def recorded_scalars(folder: Path, first: int) -> list[tuple[str, int]] | None:
    """Returns name and step of each scalar recorded before step `first`; None for a directory without event files."""
    if not any(folder.glob("events.out.tfevents.*")):
        return None
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # else it logs what earlier resumes have purged
    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    steps = ((tag, int(event.step)) for tag in found.Tags()[SCALARS] for event in found.Scalars(tag))
    return [(tag, step) for tag, step in steps if step < first]


@functools.cache
def silence_writer_threads() -> None:
    """Drops tracebacks of TensorBoard's writer threads: the writer raises the same error at the next record."""
    before = threading.excepthook

    def report_others(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            before(args)

    threading.excepthook = report_others


def plain(value: Any) -> Any:
    """Returns a value that HPARAMS accepts."""
    return value if isinstance(value, bool | int | float | str) else str(value)
