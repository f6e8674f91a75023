"""A logger that can neither end nor slow the run: its first error is told, and from then on it takes nothing more."""

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

from arclight.distributed.environment import is_main_process
from arclight.errors import first_line
from arclight.loggers.background import Background

PATIENCE_S = 20.0  # at the end, for a tracker that has not taken everything; one that uploads may name a time of its own

log = logging.getLogger(__name__)


class FaultTolerantLogger(Logger):
    """A logger behind a guard. What Lightning asks of a logger goes on to it, until one answer is an error.

    A tracker's process that was killed, a full disk, a server that is gone or never answers: the run goes on, and the log says
    what is lost. All else that `logger` can do (`watch`, `log_image`, ...) is there under its own name, without a guard.

    Args:
        logger: what is guarded.
        name: of the tracker, for the message.
        folder: of the run.
        in_background: whether records go to it in a thread of its own; else the training waits until they are taken.
    """

    def __init__(self, logger: Logger, name: str, folder: Path, *, in_background: bool = False) -> None:
        super().__init__()
        self.logger = logger
        self.logger_name = name
        self.folder = folder
        self.is_broken = False
        self._background = Background(f"tracker {name}") if in_background else None

    @contextmanager
    def _guard(self) -> Any:
        try:
            yield
        except Exception as error:
            self._give_up(f"has failed ({type(error).__name__}: {first_line(error)})")

    def _give_up(self, why: str) -> None:
        if not self.is_broken:
            self.is_broken = True
            log.warning("%s %s: it records nothing from here on; the run goes on", self.logger_name, why)

    def attempt(self, do: Callable[[], Any], otherwise: Any = None) -> Any:
        """What `do` gives; `otherwise` when the tracker is broken, or breaks."""
        answer = otherwise
        if not self.is_broken:
            with self._guard():
                answer = do()
        return answer

    def send(self, do: Callable[[], Any]) -> None:
        """Attempts what nobody waits for, after all that was sent before; only the first process has something to send."""
        if self.is_broken or not is_main_process():
            return
        if self._background is None:
            self.attempt(do)
        elif not self._background.put(lambda: self.attempt(do)):
            self._give_up("does not answer, and more waits for it than can be kept")

    def wait(self) -> None:
        """Until the tracker has taken all that was sent, or its patience is at an end."""
        if self._background is not None and not self.is_broken:
            longest_s = float(getattr(type(self.logger), "patience_s", PATIENCE_S))
            if not self._background.wait(longest_s):
                self._give_up(f"has not taken everything within {longest_s:g} s, the rest is lost")

    def close(self) -> None:
        """Waits, and lets the thread go."""
        self.wait()
        if self._background is not None:
            self._background.end()

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
        taken = dict(metrics)  # who logs may change theirs meanwhile
        self.send(lambda: self.logger.log_metrics(taken, step=step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        self.send(lambda: self.logger.log_hyperparams(params))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self.attempt(lambda: self.logger.log_graph(model, input_array))  # now: training changes the model

    def save(self) -> None:
        self.send(self.logger.save)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.attempt(lambda: self.logger.after_save_checkpoint(checkpoint_callback))  # now: the next save replaces the file

    def finalize(self, status: str) -> None:
        self.send(lambda: self.logger.finalize(status))

    def __getattr__(self, name: str) -> Any:
        if name == "logger":  # not there yet
            raise AttributeError(name)
        return getattr(self.logger, name)
