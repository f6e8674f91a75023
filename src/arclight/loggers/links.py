"""Where each tracker shows the run: a link, or the command that opens it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from arclight.console.terminal import relative_path
from arclight.loggers.fault_tolerant import FaultTolerantLogger


def links(loggers: Sequence[Logger]) -> list[tuple[str, str]]:
    """Name and place of each tracker, in the order of the loggers; of one that has failed, that it has."""
    found = []
    for logger in loggers:
        if isinstance(logger, FaultTolerantLogger):
            place = logger.attempt(functools.partial(place_of, logger), "")
            found.append((logger.logger_name, "has failed: see train.log" if logger.is_broken else place))
        else:
            found.append((type(logger).__name__, str(logger.save_dir or "")))
    return found


def place_of(guarded: FaultTolerantLogger) -> str:
    """Where a tracker that is known here shows the run; where another one writes."""
    logger: Any = guarded.logger
    kind = type(logger).__name__
    if kind == "CSVLogger":
        return relative_path(guarded.folder / "metrics.csv")
    if kind in ("TensorBoardLogger", "TrackedByTensorboard"):
        return f"tensorboard --logdir {relative_path(guarded.folder.parent)}"
    if kind == "TrackedByWandb":
        run = logger.experiment
        return f"wandb leet {relative_path(guarded.folder / 'wandb')}" if run.offline else str(run.url)
    if kind == "TrackedByMlflow":
        store = str(logger._tracking_uri)
        is_server = store.startswith(("http://", "https://"))
        page = f"{store.rstrip('/')}/#/experiments/{logger.experiment_id}/runs/{logger.run_id}"
        if store.startswith("sqlite:///"):
            store = f"sqlite:///{relative_path(Path(store.removeprefix('sqlite:///')))}"
        return page if is_server else f"mlflow ui --backend-store-uri {store}"
    return str(logger.save_dir or "")
