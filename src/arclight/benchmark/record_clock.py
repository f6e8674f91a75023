"""The clock of the CIFAR-10 speed records, in a run of `python train.py`, so that both can be set side by side.

`++callbacks.record_clock._target_=arclight.benchmark.record_clock.RecordClock` adds it to any run. In count the first layer's
filters, the epochs (augmentation, steps, Lightning, callbacks, trackers) and the test with its test-time augmentation; out are
imports, reading and moving the data, and validation, as there. What is compiled is out only in a process that has compiled
before: take the first of several runs in one process for a warm-up, as the records do. `record_clock.json` in the run folder:

    setup_s, train_s, test_s    the three parts; their sum is the records' clock
    closing_s                   from the end of training to the end of fit: what the last checkpoint and the trackers still take

Source: airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench, start_timer and stop_timer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RecordClock(Callback):
    """Sums up the parts; waits for the device where one begins and ends, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = {"setup_s": 0.0, "train_s": 0.0, "test_s": 0.0, "closing_s": 0.0}
        self._began = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._start()  # the module's own setup comes next, which computes the filters

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("setup_s")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("train_s")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("train_s")
        self._start()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("closing_s")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("test_s")
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "record_clock.json").write_text(json.dumps(self.seconds) + "\n", encoding="utf-8")

    def _start(self) -> None:
        self._began = now()

    def _stop(self, part: str) -> None:
        self.seconds[part] += now() - self._began


def now() -> float:
    """Seconds of a clock that only goes on, once the GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def read_clock(folder: Path) -> dict[str, float]:
    """The seconds of a run: each part, `record_s` as the records count, and `with_closing_s` with the last checkpoint in it."""
    plain: dict[str, Any] = json.loads((folder / "record_clock.json").read_text(encoding="utf-8"))
    parts = {name: float(value) for name, value in plain.items()}
    record = parts["setup_s"] + parts["train_s"] + parts["test_s"]
    return {**parts, "record_s": record, "with_closing_s": record + parts["closing_s"]}
