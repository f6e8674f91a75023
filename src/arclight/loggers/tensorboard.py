"""A run of TensorBoard: curves, what the run was made with, how it ended; nothing stands twice when it goes on."""

from __future__ import annotations

import functools
import json
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import TensorBoardLogger

from arclight.config.compose import flatten

Images = Literal["mistakes"]  # of the artifacts, what TensorBoard shows


class ResumableTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger with the config as a text, and at the end as a row of the page HPARAMS with the scores beside it.

    Args:
        folder: of the run; the event files lie in `tensorboard/` below.
        artifacts: handed over at the end.
        after_step: of a run that goes on, the optimizer steps that it has behind it; what was recorded later is purged.
    """

    def __init__(self, folder: Path, *, artifacts: Sequence[Images], after_step: int) -> None:
        purge_step = after_step + 1 if after_step else None
        super().__init__(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step)
        self.artifacts = tuple(artifacts)
        quiet_writers()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, metrics: Any = None, step: int | None = None) -> None:
        super().log_hyperparams(params, metrics, step)
        facts = params if isinstance(params, Mapping) else vars(params)
        self.experiment.add_text("run", "```\n" + json.dumps(facts, indent=2, default=str) + "\n```")

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self._kwargs["purge_step"] = None  # Lightning opens a new file for the test, which must purge nothing

    def describe_end(self, results: Mapping[str, Any]) -> None:
        """Status and scores beside the settings: a row of HPARAMS."""
        from torch.utils.tensorboard.summary import hparams

        self.experiment.add_text("status", str(results.get("status", "")))
        settings = {key: plain(value) for key, value in flatten(self.hparams) if not key.startswith(("hardware", "packages"))}
        scores = {key: value for key, value in results.items() if key.startswith(("val/", "test/")) and value is not None}
        for summary in hparams({**settings, "status": str(results.get("status", ""))}, scores):
            self.experiment.file_writer.add_summary(summary)
        for key, value in scores.items():
            self.experiment.add_scalar(key, value, int(results.get("steps") or 0))


@functools.cache
def quiet_writers() -> None:
    """TensorBoard's writer keeps its error for the next record, where the guard tells it; its thread shows no traceback."""
    before = threading.excepthook

    def told(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            before(args)

    threading.excepthook = told


def plain(value: Any) -> Any:
    """As HPARAMS takes it."""
    return value if isinstance(value, bool | int | float | str) else str(value)
