"""A logger whose failure neither stops nor slows the run: its first error is logged, and from then on it records nothing.

One `log_metrics` call of six metrics took, on two busy CPU cores: CSV 0.13 ms, TensorBoard 0.31 ms, W&B 1.2 ms, MLflow on
SQLite 76 ms. MLflow and W&B, whose process may hang, are called in a thread (0.10 ms). MLflow's own queue (`synchronous=False`,
0.36 ms) is not used: it sends every batch to a server that is gone, without a time limit at the end of the run.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from arclight.config.redaction import without_secrets
from arclight.distributed.environment import is_main_process
from arclight.errors import first_line

MAX_PENDING = 10_000  # calls that wait for a slow logger
TIMEOUT_S = 20.0  # for a slow logger to record what is pending at the end, unless its class sets `timeout_s`

log = logging.getLogger(__name__)


def _forwarded(name: str) -> Any:
    """Returns a property of the wrapped logger; None after a failure."""
    return property(lambda self: self.attempt(lambda: getattr(self.logger, name)))


class FaultTolerantLogger(Logger):
    """Wraps a logger and forwards what Lightning calls, until one call raises.

    A killed logger process, a full disk, a server that is gone or never answers: the run continues, and the log says what is
    lost. Everything else that `logger` offers (`watch`, `log_image`, ...) is available under its own name, unguarded.

    Args:
        logger: the wrapped logger. Its class may define `is_slow` (it is called in a thread), `location()`,
            `stamped(metrics)` (returns what is logged; called at once), `upload_artifacts(run_dir)`, `end(status)` and
            `release()` (called after a failure).
        name: of the logger in messages.
        run_dir: of the run.
    """

    def __init__(self, logger: Logger, name: str, run_dir: Path) -> None:
        super().__init__()
        self.logger = logger
        self.logger_name = name
        self.run_dir = run_dir
        self.is_broken = False
        self._failing = threading.Lock()  # a slow logger fails in its thread or in the caller's
        self._pending: queue.Queue[Callable[[], Any] | None] | None = None
        if getattr(type(logger), "is_slow", False) and is_main_process():
            self._pending = queue.Queue(MAX_PENDING)
            # a daemon: the process may end while a server does not answer
            threading.Thread(target=_run_calls, args=(self._pending,), name=f"logger {name}", daemon=True).start()

    def _fail(self, reason: str) -> None:
        with self._failing:
            if not self.is_broken:
                log.warning("%s %s: it records nothing from here on; the run continues", self.logger_name, reason)
                self.is_broken = True  # last: whoever reads it may rely on the message

    def attempt(self, call: Callable[[], Any], default: Any = None) -> Any:
        """Returns what `call` returns; `default` when the logger has failed or fails now."""
        if not self.is_broken:
            try:
                return call()
            except Exception as error:
                self._fail(f"failed ({type(error).__name__}: {first_line(error)})")
        return default

    def send(self, call: Callable[[], Any]) -> None:
        """Makes a call without a result, on the main process only; a slow logger's waits in its queue."""
        if self.is_broken or not is_main_process():
            return
        if self._pending is None:
            self.attempt(call)
            return
        try:
            self._pending.put_nowait(lambda: self.attempt(call))
        except queue.Full:
            self._fail(f"does not respond, {MAX_PENDING:,} calls are pending")

    def wait(self) -> None:
        """Waits until a slow logger has recorded everything, or its timeout."""
        if self._pending is not None and not self.is_broken:
            done, timeout_s = threading.Event(), getattr(type(self.logger), "timeout_s", TIMEOUT_S)
            try:
                self._pending.put_nowait(done.set)  # not by `send`, which makes no call after a failure
            except queue.Full:
                self._fail(f"does not respond, {MAX_PENDING:,} calls are pending")
                return
            if not done.wait(timeout_s):
                self._fail(f"did not record everything within {timeout_s:g} s")

    def end(self, status: str) -> None:
        """Uploads the artifacts and ends the logger's run; `close` waits for it."""
        outcome = "success" if status == "finished" else "failed"  # in Lightning's words
        for name, argument in (("upload_artifacts", self.run_dir), ("finalize", outcome), ("end", status)):
            if hasattr(type(self.logger), name):  # of its class: Lightning's DummyLogger has every attribute
                # the other processes have W&B runs of their own, which only end
                forward = self.attempt if name == "end" and not is_main_process() else self.send
                forward(functools.partial(getattr(self.logger, name), argument))

    def close(self) -> None:
        """Waits for a slow logger, then lets go of the thread and of what has failed."""
        self.wait()
        if self._pending is not None:
            with contextlib.suppress(queue.Full):
                self._pending.put_nowait(None)
            self._pending = None
        if self.is_broken and hasattr(type(self.logger), "release"):
            self.logger.release()  # type: ignore[attr-defined]

    @property
    def location(self) -> str:
        """Where to look at the run: a link, a command or a path."""
        own = hasattr(type(self.logger), "location")
        place = self.attempt(lambda: self.logger.location() if own else self.logger.save_dir)  # type: ignore[attr-defined]
        return "failed: see train.log" if self.is_broken else str(place or "")

    name = _forwarded("name")
    version = _forwarded("version")
    root_dir = _forwarded("root_dir")
    log_dir = _forwarded("log_dir")

    @property
    def save_dir(self) -> str | None:
        return self.attempt(lambda: self.logger.save_dir, str(self.run_dir))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the wrapped logger, for a module that asks whether it is a TensorBoardLogger."""
        return type(self.logger)

    @property
    def experiment(self) -> Any:
        """The wrapped logger's own object; after a failure, a dummy that accepts every call."""
        return self.attempt(lambda: getattr(self.logger, "experiment", None), DummyLogger().experiment)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)  # the caller may change it
        if hasattr(type(self.logger), "stamped"):
            values = self.logger.stamped(values)  # type: ignore[attr-defined]
        self.send(functools.partial(self.logger.log_metrics, values, step=step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        values = without_secrets(dict(params if isinstance(params, Mapping) else vars(params)))
        self.send(lambda: self.logger.log_hyperparams(values))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self.attempt(lambda: self.logger.log_graph(model, input_array))  # now: training changes the model

    def save(self) -> None:
        self.send(self.logger.save)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.attempt(lambda: self.logger.after_save_checkpoint(checkpoint_callback))  # now: the next save replaces the file

    def finalize(self, status: str) -> None:
        self.send(lambda: self.logger.finalize(status))

    def __getattr__(self, name: str) -> Any:
        if name == "logger":  # not set yet
            raise AttributeError(name)
        return getattr(self.logger, name)


def locations(loggers: Sequence[Logger]) -> list[tuple[str, str]]:
    """Returns the name of each logger and where to look at its run."""
    return [
        (logger.logger_name, logger.location)
        if isinstance(logger, FaultTolerantLogger)
        else (type(logger).__name__, str(logger.save_dir or ""))
        for logger in loggers
    ]


def _run_calls(pending: queue.Queue[Callable[[], Any] | None]) -> None:
    while (call := pending.get()) is not None:
        call()
