"""Progress of a run: a bar on a terminal, and one line per epoch above it or in a log.

Not a subclass of Lightning's bars: RichProgressBar draws from a thread beside the training, reads metrics from the device and
breaks lines on narrow terminals; in TQDMProgressBar log lines break the bar. Changing that takes about as many lines.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from arclight.callbacks.best_checkpoint import scores_of
from arclight.callbacks.loss_logging import LossLogging
from arclight.console.terminal import format_metric, print_lines

REFRESH_S = 0.2  # between two updates of the bar; drawing takes milliseconds, as much as a step of a small net
MIN_WIDTH_FOR_SPEED = 72  # columns


def progress_callback(console: Console, losses: LossLogging) -> Callback:
    """Returns a progress bar for a terminal, lines for a log."""
    return ProgressBar(console, losses) if console.is_terminal else EpochLines(console, losses)


class EpochLines(Callback):
    """Writes a plain line per epoch: training loss, validation scores, seconds since the fit began."""

    def __init__(self, console: Console, losses: LossLogging) -> None:
        super().__init__()
        self.console = console
        self.losses = losses
        self._fit_start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            loss = self.losses.epoch_loss
            scores = {**({} if loss is None else {"train/loss": loss}), **scores_of(trainer)}
            parts = [epoch_of(trainer), *(f"{name} {format_metric(value)}" for name, value in scores.items())]
            print_lines(self.console, ["  ".join([*parts, f"{time.perf_counter() - self._fit_start:.0f} s"])])


class ProgressBar(EpochLines):
    """Shows a bar for the whole fit, with the epoch, loss, speed and time left, validation included.

    The loss is the one that was last logged, so that the bar never waits for the device. What a module logs with
    `prog_bar=True` is shown, too.
    """

    def __init__(self, console: Console, losses: LossLogging) -> None:
        super().__init__(console, losses)
        self._progress: Progress | None = None
        self._drawn = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches  # inf or negative without an end
        self._show(epoch_of(trainer), total if 0 < total < math.inf else None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due():
            loss = self.losses.last_loss
            if loss is None and pl_module.device.type == "cpu" and outputs:  # none logged yet, and no device to wait for
                loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
            self._draw(
                self._numbers(trainer, loss), completed=trainer.fit_loop.total_batch_idx + 1, description=epoch_of(trainer)
            )

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._is_due() and trainer.testing:
            self._draw(completed=sum(trainer.num_test_batches[:dataloader_idx]) + batch_idx + 1)
        elif self._is_due():
            self._draw(f"validating, batch {batch_idx + 1} of {trainer.num_val_batches[dataloader_idx]}")

    on_test_batch_end = on_validation_batch_end

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show("testing", sum(trainer.num_test_batches))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    on_test_end = on_train_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hide()

    def _show(self, text: str, total: float | None) -> None:
        self._hide()
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True)),
            *([] if total is None else [TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))]),
        )
        self._progress = Progress(
            *columns,
            console=self.console,
            auto_refresh=False,  # no thread beside the training
            transient=True,
            expand=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._progress.add_task(text, total=total, numbers="")
        self._progress.start()
        self._draw()

    def _is_due(self) -> bool:
        return time.monotonic() - self._drawn >= REFRESH_S

    def _draw(self, numbers: str = "", *, completed: float | None = None, description: str | None = None) -> None:
        if self._progress is not None:
            self._progress.update(TaskID(0), description=description, completed=completed, numbers=numbers, refresh=True)
            self._drawn = time.monotonic()

    def _hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _numbers(self, trainer: Trainer, loss: float | None) -> str:
        shown = {**({} if loss is None else {"loss": loss}), **trainer.progress_bar_metrics}
        parts = [f"{name} {format_metric(float(value))}" for name, value in shown.items()]
        window = self.losses.throughput.window
        if window.total_s and self.console.width >= MIN_WIDTH_FOR_SPEED:
            name, number = next(iter(window.units.items()), ("samples", window.samples))
            parts.append(f"{number * trainer.world_size / window.total_s:,.0f} {name}/s")
        return "  ".join(parts)


def epoch_of(trainer: Trainer) -> str:
    """Returns the epoch, counted from 1, such as "epoch 2/10"."""
    total = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f"/{total}" if total is not None and total > 0 else "")
