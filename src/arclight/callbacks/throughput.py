"""How fast training goes and what it waits for, measured in every run without slowing it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from arclight.callbacks.bottleneck import advise
from arclight.callbacks.flops import count_useful
from arclight.hardware.energy import EnergyMeter
from arclight.hardware.peaks import peak_flops
from arclight.images.info import ImageBatch
from arclight.modules.supervised import SupervisedModule
from arclight.text.info import TokenBatch

NUM_FIRST = 10  # parts whose time is left out of the steady state: caches, allocators and compilers warm up in them
# what a step's time goes to; "logging" is all callbacks and loggers, and what Lightning does between the others
PARTS = ("data_wait", "forward_backward", "optimizer", "logging")

log = logging.getLogger(__name__)


def no_time() -> dict[str, float]:
    """No seconds yet, for none of the parts."""
    return dict.fromkeys(PARTS, 0.0)


@dataclass
class Window:
    """Sums over some parts of batches on this process; `seconds` are those of each of PARTS."""

    parts: int = 0
    samples: int = 0
    tokens: int = 0
    pairs: int = 0
    positions: int = 0
    seconds: dict[str, float] = field(default_factory=no_time)

    @property
    def total_s(self) -> float:
        """All of its time."""
        return sum(self.seconds.values())

    def add(self, batch: ImageBatch | TokenBatch, seconds: dict[str, float]) -> None:
        """One more part of a batch, and the time since the one before."""
        self.parts += 1
        self.samples += len(batch.indices)
        if isinstance(batch, TokenBatch):
            self.tokens += batch.num_tokens
            self.pairs += batch.num_pairs
            self.positions += batch.input_ids.numel()
        for part, value in seconds.items():
            self.seconds[part] += value


class DeviceClock:
    """What a GPU itself takes for the parts of a step: the last one before each log, read when the host has waited anyway."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.seconds = no_time()
        self._events: list[tuple[str, torch.cuda.Event]] = []

    def mark(self, part: str) -> None:
        """The device has now been told all of this part; the first part of a step forgets the step before."""
        if part == PARTS[0]:
            self._events.clear()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append((part, event))

    def read(self) -> None:
        """Adds the step up; the device must have done it."""
        for (_, before), (part, after) in pairwise(self._events):
            self.seconds[part] += before.elapsed_time(after) / 1000
        self.num_steps += bool(self._events)


class Throughput(Callback):
    """Counts samples, real tokens and seconds of training, validation left out; the host's clock, no wait for the device.

    Every hook puts the time since the one before to one part of the step. Every `log_every_n_steps` optimizer steps the mean
    loss since the last time, the learning rate and the speed are logged; only then is a number read from the device.
    """

    def __init__(self, started: float) -> None:
        """`started`: when the process started, by time.monotonic."""
        super().__init__()
        self.started = started
        self.first_step_s: float | None = None
        self.first, self.steady = Window(), Window()
        self.last_loss: float | None = None
        self._mark = 0.0  # when the last hook was called
        self._seconds = no_time()  # since the last part was counted
        self._clock: DeviceClock | None = None
        self._hooks: list[RemovableHandle] = []
        self._meter: EnergyMeter | None = None
        self._joules: float | None = None
        self._batch: ImageBatch | TokenBatch | None = None
        self._loss_sum: Tensor | None = None
        self._num_losses = 0
        self._device = torch.device("cpu")
        self._recent = Window()

    def state_dict(self) -> dict[str, Any]:
        """Every process has to ask: each has a sum of its own, and the first one's is what is saved."""
        own = torch.zeros(1, device=self._device) if self._loss_sum is None else self._loss_sum.reshape(1).to(self._device)
        sums = [own]
        if torch.distributed.is_initialized():
            sums = [torch.zeros_like(own) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(sums, own)
        return {"loss_sums": torch.cat(sums).tolist(), "num_losses": self._num_losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["num_losses"]:
            sums = torch.tensor(state_dict["loss_sums"])
            group = torch.distributed
            rank, size = (group.get_rank(), group.get_world_size()) if group.is_initialized() else (0, 1)
            # on another number of processes, all go on from the mean
            self._loss_sum = sums[rank] if len(sums) == size else sums.mean()
            self._num_losses = state_dict["num_losses"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside __init__
        if stage == "fit" and not any(isinstance(callback, AfterCallbacks) for callback in callbacks):
            callbacks.append(AfterCallbacks(self))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()  # of a run that goes on inside an epoch, no epoch starts
        self._device = pl_module.device
        self._clock = DeviceClock() if pl_module.device.type == "cuda" else None

        def stepped(optimizer: Any, arguments: Any, named: Any) -> None:
            self.close("optimizer")

        self._hooks = [optimizer.register_step_post_hook(stepped) for optimizer in trainer.optimizers]
        self._meter = EnergyMeter(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drain(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drain(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.close("data_wait")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close("forward_backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch | TokenBatch, batch_idx: int
    ) -> None:
        self.close("logging")
        for window in (self.first if self.first.parts < NUM_FIRST else self.steady, self._recent):
            window.add(batch, self._seconds)
        self._seconds, self._batch = no_time(), batch
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning has divided it for the sum of gradients
        self._loss_sum = loss if self._loss_sum is None else self._loss_sum + loss
        self._num_losses += 1
        accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.first_step_s is None and accumulated:
            self.first_step_s = time.monotonic() - self.started
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set outside __init__
        if accumulated and every and trainer.global_step % every == 0:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_losses:
            self._log(trainer)
        self._take_off()
        self._joules = None if self._meter is None else self._meter.read()
        if self.first.parts and trainer.is_global_zero:
            log.info(self.advice())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_off()

    def close(self, part: str) -> None:
        """The time since the last hook went to this part of the step."""
        now = time.perf_counter()
        self._seconds[part] += now - self._mark
        self._mark = now
        if self._clock is not None:
            self._clock.mark(part)

    def numbers(self, trainer: Trainer) -> dict[str, float]:
        """The speed of the fit over all processes, as results.json names it; every process must ask.

        `train/step_ms` is an optimizer step; the shares are those of this process. Of a fit too short for a steady state, the
        first parts are taken; before any part there are no numbers. What a counter or a table does not tell is left out.
        """
        window = self._window()
        if not window.parts:
            return {}
        of_device = (self._joules, peak_of(trainer))  # a sum that lacks one process's is no sum
        missing = [float(value is None) for value in of_device]
        counts = (window.samples, window.tokens, window.pairs, *(value or 0.0 for value in of_device), *missing)
        sums = torch.tensor(counts, device=trainer.strategy.root_device, dtype=torch.float64)
        samples, tokens, pairs, joules, peak, *missing = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        steps = window.parts / trainer.accumulate_grad_batches
        numbers = {
            "train/samples_per_s": samples / window.total_s,
            "train/step_ms": 1000 * window.total_s / steps,
            **{f"train/{part}_share": share for part, share in self.shares().items()},
        }
        if tokens:
            numbers["train/tokens_per_s"] = tokens / window.total_s
        if not missing[0]:
            numbers["train/joules"] = joules
        if self.first_step_s is not None:
            numbers["time/first_step_s"] = self.first_step_s
        flops = self._flops(trainer, samples, tokens, pairs)
        if flops is not None:
            numbers["train/tflops"] = flops / 1e12
            if not missing[1]:
                numbers["train/mfu"] = flops / peak
        return numbers

    def shares(self) -> dict[str, float]:
        """The part of a step's time that each of PARTS takes.

        On a GPU, which works while the host goes on, `forward_backward` and `optimizer` are those of the device.
        """
        window = self._window()
        shares = {part: seconds / window.total_s for part, seconds in window.seconds.items()}
        if self._clock is not None and self._clock.num_steps:
            per_part_s = window.total_s / window.parts
            for part in ("forward_backward", "optimizer"):
                shares[part] = min(1.0, self._clock.seconds[part] / self._clock.num_steps / per_part_s)
        return shares

    def advice(self) -> str:
        """One line: what the run waits for and what to change."""
        window = self._window()
        padding = 1 - window.tokens / window.positions if window.positions else 0.0
        return advise(self.shares(), padding=padding, is_gpu=self._clock is not None)

    def _flops(self, trainer: Trainer, samples: float, tokens: float, pairs: float) -> float | None:
        """FLOP/s of the useful work; None where it cannot be counted."""
        module = trainer.lightning_module
        counted = (
            count_useful(module, self._batch) if isinstance(module, SupervisedModule) and self._batch is not None else None
        )
        return None if counted is None else counted.of(samples, tokens, pairs) / self._window().total_s

    def _window(self) -> Window:
        return self.steady if self.steady.parts else self.first

    def _take_off(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _drain(self, device: torch.device) -> None:
        """Waits for what the device still has to do and counts it as training."""
        if device.type == "cuda" and self._mark:
            torch.cuda.synchronize(device)
            now = time.perf_counter()
            self._window().seconds["forward_backward"] += now - self._mark
            self._mark = now

    def _log(self, trainer: Trainer) -> None:
        assert self._loss_sum is not None
        # processes hold equal parts of each batch, so the mean of their means is that of the batch
        mean = (self._loss_sum / self._num_losses).to(trainer.strategy.root_device)  # a restored sum may not be there yet
        self.last_loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        if self._clock is not None:
            self._clock.read()
        metrics = {
            "train/loss": self.last_loss,
            "train/samples_per_s": self._recent.samples * trainer.world_size / max(self._recent.total_s, 1e-9),
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.save()
        self._loss_sum, self._num_losses = None, 0
        self._recent = Window()


def peak_of(trainer: Trainer) -> float | None:
    """FLOP/s that this process's device can do at most; None where they are not known."""
    device = trainer.strategy.root_device
    if device.type != "cuda":
        return None
    with_tf32 = torch.get_float32_matmul_precision() != "highest"
    return peak_flops(torch.cuda.get_device_name(device), str(trainer.precision), with_tf32=with_tf32)


class AfterCallbacks(Callback):
    """Stands last among the callbacks: what came since the step's end was theirs, what comes now is the wait for data."""

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self._throughput = throughput

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._throughput.close("logging")
