"""A run of TensorBoard: curves, config and final status; a resumed run records no step twice."""

from __future__ import annotations

import functools
import json
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import TensorBoardLogger

from arclight.config.atomic_file import read_json
from arclight.config.compose import flatten
from arclight.console.terminal import relative_path
from arclight.loggers.artifacts import error_images


class ResumableTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger, with the config as a text and at the end as a row of the HPARAMS page with the scores.

    What was recorded after step `after_step` of a resumed run is purged.
    """

    def __init__(self, run_dir: Path, *, artifacts: Sequence[Literal["mistakes"]], after_step: int) -> None:
        purge_step = after_step + 1 if after_step else None
        super().__init__(run_dir, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step)
        self.artifacts = tuple(artifacts)
        silence_writer_threads()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, metrics: Any = None, step: int | None = None) -> None:
        super().log_hyperparams(params, metrics, step)
        values = params if isinstance(params, Mapping) else vars(params)
        self.experiment.add_text("run", "```\n" + json.dumps(values, indent=2, default=str) + "\n```")

    def location(self) -> str:
        return f"tensorboard --logdir {relative_path(Path(self.save_dir).parent)}"

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self._kwargs["purge_step"] = None  # Lightning opens a new file for the test, which must purge nothing

    def upload_artifacts(self, run_dir: Path) -> None:
        """Writes status and scores, as a row of HPARAMS too, and the most confident errors that have an image."""
        import numpy as np
        from torch.utils.tensorboard.summary import hparams

        results = read_json(run_dir / "results.json")
        status, step = str(results.get("status", "")), int(results.get("steps") or 0)
        self.experiment.add_text("status", status)
        settings = {key: plain(value) for key, value in flatten(self.hparams) if not key.startswith(("hardware", "packages"))}
        scores = {key: value for key, value in results.items() if key.startswith(("val/", "test/")) and value is not None}
        for summary in hparams({**settings, "status": status}, scores):
            self.experiment.file_writer.add_summary(summary)
        for key, value in scores.items():
            self.experiment.add_scalar(key, value, step)
        for number, (image, caption) in enumerate(error_images(run_dir) if "mistakes" in self.artifacts else ()):
            pixels = np.asarray(image.convert("RGB"))
            self.experiment.add_image(f"mistakes/{number:02} {caption}", pixels, step, dataformats="HWC")
        self.experiment.flush()


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
