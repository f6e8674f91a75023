"""Measures how fast training is and what it waits for, in every run and without slowing it."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.hooks import RemovableHandle

from arclight.callbacks.flops import count_useful
from arclight.callbacks.step_timing import DeviceClock, Window, advise, no_time
from arclight.hardware.energy import EnergyMeter
from arclight.hardware.peak_measurement import known_peak_flops

NUM_FIRST = 10  # micro-batches left out of the steady state: caches, allocators and compilers warm up in them

log = logging.getLogger(__name__)


class Throughput(Callback):
    """Counts samples, other units and seconds of training, validation left out, by the host's clock.

    Every hook assigns the time since the one before to one phase of the step. No hook waits for the device.

    Args:
        started: when the process started, by time.monotonic.
    """

    def __init__(self, started: float) -> None:
        super().__init__()
        self.started = started
        self.first_step_s: float | None = None
        self.first, self.steady = Window(), Window()
        self._recent = Window()  # since the last log
        self._last_hook_s = 0.0
        self._seconds = no_time()  # since the last micro-batch was counted
        self._clock: DeviceClock | None = None
        self._hooks: list[RemovableHandle] = []
        self._meter: EnergyMeter | None = None
        self._joules: float | None = None
        self._batch: Any = None

    @property
    def window(self) -> Window:
        """The steady state, or the first micro-batches of a fit too short for one."""
        return self.steady if self.steady.micro_batches else self.first

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside __init__
        if stage == "fit" and not any(isinstance(callback, AfterCallbacks) for callback in callbacks):
            callbacks.append(AfterCallbacks(self))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_hook_s = time.perf_counter()  # a run that resumes inside an epoch starts no epoch
        self._clock = DeviceClock() if pl_module.device.type == "cuda" else None

        def after_step(optimizer: Any, arguments: Any, named: Any) -> None:
            self.end_phase("optimizer")

        self._hooks = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]
        self._meter = EnergyMeter(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_hook_s = time.perf_counter()

    on_validation_end = on_train_epoch_start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for the device and counts that as training."""
        if pl_module.device.type == "cuda" and self._last_hook_s:
            torch.cuda.synchronize(pl_module.device)
            now = time.perf_counter()
            self.window.seconds["forward_backward"] += now - self._last_hook_s
            self._last_hook_s = now

    on_validation_start = on_train_epoch_end

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.end_phase("data_wait")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end_phase("forward_backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.end_phase("logging")
        for window in (self.first if self.first.micro_batches < NUM_FIRST else self.steady, self._recent):
            window.add(batch, self._seconds)
        self._seconds, self._batch = no_time(), batch
        if self.first_step_s is None and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.first_step_s = time.monotonic() - self.started

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hooks()
        self._joules = None if self._meter is None else self._meter.read()
        if self._clock is not None:
            torch.cuda.synchronize(pl_module.device)
            self._clock.read()
        if self.first.micro_batches and trainer.is_global_zero:
            log.info(self.advice())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def end_phase(self, phase: str) -> None:
        """Assigns the time since the last hook to this phase of the step."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._last_hook_s
        self._last_hook_s = now
        if self._clock is not None:
            self._clock.mark(phase)

    def take_recent(self) -> float:
        """Returns the samples per second of this process since the last call, for which the device has finished its work."""
        if self._clock is not None:
            self._clock.read()
        recent, self._recent = self._recent, Window()
        return recent.samples / max(recent.total_s, 1e-9)

    def results(self, trainer: Trainer) -> dict[str, float]:
        """Returns the speed of the fit over all processes, by the keys of results.json; every process must call this.

        `train/step_ms` is that of an optimizer step; the fractions are those of this process. Unknown values are left out.
        """
        window = self.window
        if not window.micro_batches:
            return {}
        flops = count_useful(trainer.lightning_module, self._batch) or {}
        is_known = flops.keys() == window.work.keys()
        own_flops = sum(flops[name] * number for name, number in window.work.items()) if is_known else 0.0
        # a sum that misses a process is no sum: it is not a number either
        optional = (math.nan if value is None else value for value in (self._joules, peak_of(trainer), own_flops or None))
        counts = (window.samples, *window.units.values(), *optional)
        sums = torch.tensor(counts, device=trainer.strategy.root_device, dtype=torch.float64)
        summed = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        samples, units = summed[0], dict(zip(window.units, summed[1:-3], strict=True))
        joules, peak, flops_sum = summed[-3:]
        results = {
            "train/samples_per_s": samples / window.total_s,
            "train/step_ms": 1000 * window.total_s / (window.micro_batches / trainer.accumulate_grad_batches),
            **{f"train/{phase}_share": fraction for phase, fraction in self.fractions().items()},
            **{f"train/{name}_per_s": number / window.total_s for name, number in units.items()},
            "train/joules": joules,
            "time/first_step_s": math.nan if self.first_step_s is None else self.first_step_s,
            "train/tflops": flops_sum / window.total_s / 1e12,
            "train/mfu": flops_sum / window.total_s / peak,
        }
        return {key: value for key, value in results.items() if not math.isnan(value)}

    def fractions(self) -> dict[str, float]:
        """Returns the fraction of a step's time that each of PHASES takes.

        On a GPU, which works while the host continues, `forward_backward` and `optimizer` are those of the device.
        """
        window, clock = self.window, self._clock
        fractions = {phase: seconds / window.total_s for phase, seconds in window.seconds.items()}
        if clock is not None and clock.num_steps:
            micro_batch_s = window.total_s / window.micro_batches
            for phase in ("forward_backward", "optimizer"):
                fractions[phase] = min(1.0, clock.seconds[phase] / clock.num_steps / micro_batch_s)
        return fractions

    def advice(self) -> str:
        """Returns one line: what the run waits for and what to change."""
        return advise(self.fractions(), padding=self.window.padding, is_gpu=self._clock is not None)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def peak_of(trainer: Trainer) -> float | None:
    """Returns the peak FLOP/s of this process's device; None if unknown."""
    return known_peak_flops(trainer.strategy.root_device, str(trainer.precision))


class AfterCallbacks(Callback):
    """Comes last: the time from the end of the step until here is that of the callbacks, after here the wait for data."""

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self._throughput = throughput

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._throughput.end_phase("logging")
