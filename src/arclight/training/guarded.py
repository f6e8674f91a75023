"""A logger that can break without the run: its first error is told, and from then on it takes nothing more."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

log = logging.getLogger(__name__)


class Guarded(Logger):
    """A logger behind a guard. What Lightning asks of a logger goes on to it, until one answer is an error.

    A tracker's process that was killed, a full disk, a server that is gone: the run goes on, and the log says what is lost. All
    else that `logger` can do (`watch`, `log_image`, ...) is there under its own name, without a guard.

    Args:
        logger: what is guarded.
        name: of the tracker, for the message.
        folder: of the run.
    """

    def __init__(self, logger: Logger, name: str, folder: Path) -> None:
        super().__init__()
        self.logger = logger
        self.tracker = name
        self.folder = folder
        self.is_broken = False

    @contextmanager
    def _guard(self) -> Any:
        try:
            yield
        except Exception as error:
            self.is_broken = True
            reason = str(error).partition("\n")[0][:300]
            log.warning(
                "%s has failed (%s: %s): it records nothing from here on; the run goes on",
                self.tracker,
                type(error).__name__,
                reason,
            )

    def attempt(self, do: Callable[[], Any], otherwise: Any = None) -> Any:
        """What `do` gives; `otherwise` when the tracker is broken, or breaks."""
        answer = otherwise
        if not self.is_broken:
            with self._guard():
                answer = do()
        return answer

    @property
    def name(self) -> str | None:
        return self.attempt(lambda: self.logger.name)

    @property
    def version(self) -> int | str | None:
        return self.attempt(lambda: self.logger.version)

    @property
    def root_dir(self) -> str | None:
        return self.attempt(lambda: self.logger.root_dir)

    @property
    def log_dir(self) -> str | None:
        return self.attempt(lambda: self.logger.log_dir)

    @property
    def save_dir(self) -> str | None:
        return self.attempt(lambda: self.logger.save_dir, str(self.folder))

    @property
    def group_separator(self) -> str:
        return self.logger.group_separator

    @property
    def experiment(self) -> Any:
        """The tracker's own object; of a broken one, something that takes everything and does nothing."""
        return self.attempt(lambda: getattr(self.logger, "experiment", None), DummyLogger().experiment)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(lambda: self.logger.log_metrics(dict(metrics), step=step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        self.attempt(lambda: self.logger.log_hyperparams(params))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self.attempt(lambda: self.logger.log_graph(model, input_array))

    def save(self) -> None:
        self.attempt(self.logger.save)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.attempt(lambda: self.logger.after_save_checkpoint(checkpoint_callback))

    def finalize(self, status: str) -> None:
        self.attempt(lambda: self.logger.finalize(status))

    def __getattr__(self, name: str) -> Any:
        if name == "logger":  # not there yet
            raise AttributeError(name)
        return getattr(self.logger, name)
