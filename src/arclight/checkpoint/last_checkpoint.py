"""`last.ckpt`: the state from which a run resumes exactly, saved inside epochs and at their ends."""

from __future__ import annotations

import functools
import logging
import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.utilities.model_helpers import is_overridden

from arclight.checkpoint.atomic_write import LAST
from arclight.distributed.signals import Agreement, Interrupted, Interruption
from arclight.errors import InputError

MAX_KEPT = 1000  # last checkpoints

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Saves after every epoch, at intervals inside it, and when a signal stops the run.

    The save after an epoch comes when all of it is done, its metrics and schedulers included: `BeforeEpoch` asks for it.
    Inside an epoch it saves after a complete optimizer step, never between accumulated micro-batches. Before a validation it
    waits for the next step or the end of the epoch, because Lightning 2.6.6 would skip that validation on resume. Exceptions
    save nothing: in the middle of a step there is no state to resume from exactly.

    Args:
        folder: of `last.ckpt`.
        interruption: the signals that this process handles.
        every_minutes: wall-clock time between saves, more than 0; null disables it.
        every_steps: optimizer steps between saves, 1 or more; null disables it.
        keep: number of last checkpoints to keep, 1 or more: `last.ckpt`, `last.previous.ckpt`, `last.previous_2.ckpt`, ...;
            when the last is damaged, a run resumes from the one before it.
        save_top_k: number of best checkpoints, which `best_checkpoint.TopCheckpoints` keeps; 1 is `best.ckpt` alone, -1 all.
        safetensors: also writes the weights of the best checkpoint to `best.safetensors`; not with fsdp.

    Raises:
        InputError: when `every_minutes`, `every_steps`, `keep` or `save_top_k` is out of range.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interruption: Interruption | None = None,
        every_minutes: float | None = 15,
        every_steps: int | None = None,
        keep: int = 2,
        save_top_k: int = 1,
        safetensors: bool = False,
    ) -> None:
        super().__init__()
        if every_minutes is not None and not 0 < every_minutes < math.inf:
            raise InputError(
                f"checkpoint.every_minutes={every_minutes} must be more than 0 and finite, or null for no saves by time",
                key="checkpoint.every_minutes",
            )
        if every_steps is not None and every_steps < 1:
            raise InputError(
                f"checkpoint.every_steps={every_steps} must be 1 or more, or null for no saves by steps",
                key="checkpoint.every_steps",
            )
        if not 1 <= keep <= MAX_KEPT:
            message = f"checkpoint.keep={keep} must be 1 to {MAX_KEPT}; 1 keeps only the last one"
            raise InputError(message, key="checkpoint.keep")
        if save_top_k < 1 and save_top_k != -1:
            raise InputError(
                f"checkpoint.save_top_k={save_top_k} must be 1 or more, or -1 for one of every validation; best.ckpt is always "
                "saved where there is a metric; monitor=none saves last.ckpt alone",
                key="checkpoint.save_top_k",
            )
        self.path = folder / LAST
        self.every_minutes = every_minutes
        self.every_steps = every_steps
        self.keep = keep
        self.save_top_k = save_top_k
        self.safetensors = safetensors
        self.num_saves = 0
        self.seconds = 0.0  # of all saves
        self._interruption = interruption or Interruption()
        self._agreement = Agreement()
        self._saved_at = time.monotonic()
        self._signal = 0  # the number of the one that stops the run
        self._is_due = False
        self._has_ended = False  # an epoch that is not saved yet

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._interruption.is_training = True
        if is_overridden("on_train_batch_end", pl_module):
            hook = functools.partial(self._after_hook, trainer, pl_module.on_train_batch_end)
            pl_module.on_train_batch_end = hook  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "on_train_batch_end" not in vars(pl_module):
            self._after_step(trainer)

    def _after_hook(self, trainer: Trainer, hook: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Takes the place of the module's own hook, which comes after those of callbacks and may change what is saved."""
        hook(outputs, batch, batch_idx)
        self._after_step(trainer)

    def _after_step(self, trainer: Trainer) -> None:
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        self._agree(trainer)
        if self.every_steps and trainer.global_step % self.every_steps == 0:
            self._is_due = True
        if (self._is_due or self._signal) and is_followed_by_step(trainer):
            if self._signal:  # Lightning logs the metrics of a step after this hook, which ends the run
                trainer._logger_connector.update_train_step_metrics()
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._has_ended = True

    def save_epoch(self, trainer: Trainer) -> None:
        """Saves if an epoch has ended since the last call."""
        if self._has_ended:
            self._has_ended = False
            self._agree(trainer, now=True)
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_epoch(trainer)
        self._end(pl_module)
        if self.num_saves:
            log.info("%d saves of %s took %.1f s", self.num_saves, self.path.name, self.seconds)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end(pl_module)
        if not isinstance(exception, Interrupted) and self.path.exists():
            log.info("resume=auto resumes from the last saved step: %s", self.path)

    def _end(self, pl_module: LightningModule) -> None:
        self._interruption.is_training = False
        vars(pl_module).pop("on_train_batch_end", None)  # the module has its own hook again

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        stoppers = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        last_epoch = trainer.current_epoch - 1  # the one that has ended
        stopped = trainer.should_stop and any(stopper.stopped_epoch == last_epoch for stopper in stoppers)
        checkpoint["stopped_early"] = stopped

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("stopped_early"):
            trainer.should_stop = True  # Lightning does not restore it and would train another epoch

    def _agree(self, trainer: Trainer, *, now: bool = False) -> None:
        """Decides with all processes whether to save or stop; the clock of rank 0 counts."""
        passed = time.monotonic() - self._saved_at
        is_due = trainer.is_global_zero and self.every_minutes is not None and passed >= 60 * self.every_minutes
        number, is_due = self._agreement.ask(trainer, self._interruption.number, is_due, now=now)
        self._signal = self._signal or number
        self._is_due = self._is_due or is_due

    def _save(self, trainer: Trainer) -> None:
        """Saves, then raises Interrupted if a signal stops the run."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set outside __init__
            start = time.monotonic()
            for logger in trainer.loggers:
                logger.save()  # metrics up to this step are on the disk before a resume can skip them
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_at, self._is_due = time.monotonic(), False
            self.num_saves += 1
            self.seconds += self._saved_at - start
            log.debug("step %d saved in %.2f s", trainer.global_step, self._saved_at - start)
        if self._signal:
            raise Interrupted(self._signal)


class BeforeEpoch(Callback):
    """Lets `LastCheckpoint` save an epoch before any other callback begins the next. Must be the first callback."""

    def __init__(self, last: LastCheckpoint) -> None:
        super().__init__()
        self._last = last

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last.save_epoch(trainer)


def cost_of_saves(trainer: Trainer) -> dict[str, float]:
    """Returns the number and the seconds of all saves since this process started, with the keys of results.json."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set outside __init__
    last = next(callback for callback in callbacks if isinstance(callback, LastCheckpoint))
    return {"checkpoint/num_saves": last.num_saves, "checkpoint/save_s": last.seconds}


def is_followed_by_step(trainer: Trainer) -> bool:
    """Returns whether another step comes next: no validation, and no end of the epoch or of the training."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return not (loop._is_training_done or loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher))
