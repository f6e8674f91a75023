"""How far a run is: a bar on a terminal, one line per epoch anywhere else and above the bar."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from arclight.callbacks.best_checkpoint import scores_of
from arclight.callbacks.throughput import Throughput
from arclight.console.terminal import say

REFRESH_S = 0.2  # between two pictures of the bar; drawing one takes milliseconds, a step of a small net not more
ROOM_FOR_SPEED = 72  # columns


def progress_callback(console: Console, throughput: Throughput) -> Callback:
    """A bar on a terminal, one line per epoch anywhere else."""
    return ProgressBar(console, throughput) if console.is_terminal else EpochLines(console, throughput)


class EpochLines(Callback):
    """One plain line per epoch: loss, validation scores, time since the fit began."""

    def __init__(self, console: Console, throughput: Throughput) -> None:
        super().__init__()
        self.console = console
        self.throughput = throughput
        self._began = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.tell(trainer)

    def tell(self, trainer: Trainer) -> None:
        """Writes the line of the epoch that ends."""
        parts = [f"epoch {epoch_of(trainer)}"]
        if self.throughput.last_loss is not None:
            parts.append(f"train/loss {self.throughput.last_loss:.4f}")
        parts += [f"{name} {value:.4f}" for name, value in scores_of(trainer).items()]
        say(self.console, ["  ".join([*parts, f"{time.perf_counter() - self._began:.0f} s"])])


class ProgressBar(EpochLines):
    """A bar for the whole fit, with the epoch, loss, speed and time left; the epochs stay above it, one row each.

    The loss is the one that the throughput callback last read, so that the bar costs the device no wait of its own. What a
    task logs with `prog_bar=True` is shown, too.
    """

    def __init__(self, console: Console, throughput: Throughput) -> None:
        super().__init__(console, throughput)
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._start: tuple[int, float] | None = None  # batches done and the time, once the first batch is behind: it compiles
        self._drawn = 0.0
        self._widths: list[int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(f"epoch {epoch_of(trainer)}", whole_of(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._start is None:
            self._start = (done_by(trainer, batch_idx), time.perf_counter())
        if self._is_due():
            done, text = done_by(trainer, batch_idx), f"epoch {epoch_of(trainer)}"
            loss = self.throughput.last_loss
            if loss is None and pl_module.device.type == "cpu":  # nothing is waited for there: the last batch's, for a start
                loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
            self._draw(description=text, completed=done, numbers=self._numbers(trainer, done, loss))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(numbers="validating")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_due():
            num_batches = trainer.num_val_batches[dataloader_idx]
            self._draw(numbers=f"validating, batch {batch_idx + 1} of {num_batches}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn = 0.0  # what it said is over

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show("testing", sum(trainer.num_test_batches))
        self._start = (0, time.perf_counter())

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_due():
            self._draw(completed=batch_idx + 1, numbers=self._left(batch_idx + 1))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hide()

    def tell(self, trainer: Trainer) -> None:
        """One row of a table whose heading comes with its first; where that has no room, the line of a log."""
        loss = self.throughput.last_loss
        cells = {"epoch": epoch_of(trainer), **({} if loss is None else {"train/loss": f"{loss:.4f}"})}
        cells |= {name: f"{value:.4f}" for name, value in scores_of(trainer).items()}
        cells["time"] = as_clock(time.perf_counter() - self._began)
        names = [name if "loss" in name else name.removeprefix("val/") for name in cells]
        widths = [max(len(name), len(cell) + 1, 6) for name, cell in zip(names, cells.values(), strict=True)]
        if sum(widths) + 2 * len(widths) > self.console.width:
            super().tell(trainer)
            return
        if self._widths is None or len(self._widths) != len(widths):
            self._widths = widths
            say(self.console, [row(names, widths)])
        say(self.console, [row([*cells.values()], self._widths)])

    def _show(self, text: str, total: float | None) -> None:
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True)),
        )
        self._hide()
        self._start = None
        self._progress = Progress(
            *columns,
            console=self.console,
            auto_refresh=False,  # no thread beside the training
            transient=True,
            expand=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._bar = self._progress.add_task(text, total=total, numbers="")
        self._progress.start()
        self._draw()

    def _is_due(self) -> bool:
        return time.monotonic() - self._drawn >= REFRESH_S

    def _draw(self, *, description: str | None = None, completed: float | None = None, numbers: str = "") -> None:
        if self._progress is not None:
            self._progress.update(self._bar, description=description, completed=completed, numbers=numbers, refresh=True)
            self._drawn = time.monotonic()

    def _hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _numbers(self, trainer: Trainer, done: int, loss: float | None) -> str:
        window = self.throughput.steady if self.throughput.steady.parts else self.throughput.first
        parts = [] if loss is None else [f"loss {loss:.3f}"]
        parts += [f"{name} {value:.3g}" for name, value in own_metrics(trainer).items()]
        if window.total_s and self.console.width >= ROOM_FOR_SPEED:
            what, num = ("tokens", window.tokens) if window.tokens else ("samples", window.samples)
            parts.append(f"{num * trainer.world_size / window.total_s:,.0f} {what}/s")
        return "  ".join([*parts, self._left(done)])

    def _left(self, done: int) -> str:
        """How long it takes if all goes on as since it began, validation included."""
        if self._progress is None or self._start is None:
            return ""
        total, (done_before, began) = self._progress.tasks[0].total, self._start
        if total is None or done <= done_before:
            return ""
        return f"{as_clock((total - done) * (time.perf_counter() - began) / (done - done_before))} left"


def row(cells: list[str], widths: list[int]) -> str:
    """The cells to the right of columns that are so wide."""
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def epoch_of(trainer: Trainer) -> str:
    """The epoch from 1, and of how many where that is known."""
    known = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs}" if known else f"{trainer.current_epoch + 1}"


def done_by(trainer: Trainer, batch_idx: int) -> int:
    """Batches of the whole run up to this one."""
    per_epoch = trainer.num_training_batches
    return batch_idx + 1 + (int(trainer.current_epoch * per_epoch) if math.isfinite(per_epoch) else 0)


def whole_of(trainer: Trainer) -> float | None:
    """Batches of the whole run, None where nothing ends it but its user."""
    ends = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(float(trainer.max_epochs * trainer.num_training_batches))
    if trainer.max_steps > 0:
        ends.append(float(trainer.max_steps * trainer.accumulate_grad_batches))
    return min((end for end in ends if math.isfinite(end)), default=None)


def own_metrics(trainer: Trainer) -> dict[str, float]:
    """What a task logs for the bar, beyond what stands there anyway."""
    shown = {name: value for name, value in trainer.progress_bar_metrics.items() if name not in ("v_num", "loss")}
    return {name: float(value) for name, value in shown.items() if isinstance(value, int | float)}


def as_clock(seconds: float) -> str:
    """Minutes and seconds, as a clock shows them; hours where there are some."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
