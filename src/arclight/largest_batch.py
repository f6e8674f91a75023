"""The largest part of a batch that one device trains on: found by real training steps, never by a formula.

Sizes double until one does not fit; then only sizes matter that divide the device's share of the batch, because parts are of
equal size (`hardware.accumulation`). On a GPU a size does not fit when CUDA says so. On a CPU it is the process that dies when
memory runs out, so a size counts as too large when the growth so far, drawn on as a straight line, would take more than 90 % of
what is free; it is not tried.
"""

from __future__ import annotations

import copy
import gc
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from rich.table import Table
from torch import Tensor

from arclight import assembly, hardware, memory, preflight
from arclight.config import Composed, composed_by_hydra, mistakes_named, to_composed
from arclight.data.datamodule import DataModule
from arclight.data.order import TrainOrder
from arclight.errors import InputError
from arclight.terminal import open_console
from arclight.training.task import Task

NUM_STEPS = 2  # of each size: from the second on the optimizer holds its state, and the allocator has found its blocks
FREE_SHARE = 0.9  # of the free memory that a try may take on a CPU
STEPS_ONLY = {
    **dict.fromkeys(("limit_train_batches", "overfit_batches", "fast_dev_run", "max_time", "accumulate_grad_batches")),
    **{"max_epochs": -1, "max_steps": NUM_STEPS, "limit_val_batches": 0, "strategy": "auto", "num_nodes": 1},
}


@dataclass(frozen=True)
class Try:
    """One size: whether it fits, seconds of a step, and the most memory; why it does not fit."""

    size: int
    fits: bool
    step_s: float | None = None
    peak_bytes: int | None = None
    reason: str = "fits"


@dataclass(frozen=True)
class Found:
    """What was tried, and the largest part that fits; `share` is what a device takes of the batch when there is no limit."""

    tries: tuple[Try, ...]
    size: int
    share: int
    described: str  # for which data, model, precision and device

    @property
    def needs_limit(self) -> bool:
        """Whether a device cannot take its share at once."""
        return self.size < self.share

    def to_rich(self) -> Table:
        """The tries as a table."""
        table = Table("samples at once", "s per step", "peak memory, MB", "")
        for tried in sorted(self.tries, key=lambda tried: tried.size):
            step_s = "" if tried.step_s is None else f"{tried.step_s:.4f}"
            peak = "" if tried.peak_bytes is None else f"{tried.peak_bytes / 1e6:,.0f}"
            table.add_row(str(tried.size), step_s, peak, tried.reason)
        return table


def find_largest_batch(overrides: Sequence[str], *, free: Callable[[], int] | None = None) -> Found:
    """Tries the config that `python train.py OVERRIDES...` would train with.

    Args:
        overrides: as on the command line; a limit that they or conf/local set is left aside.
        free: bytes that may be taken on a CPU; the machine's where it is None.

    Raises:
        InputError: for a mistake in the config or the data, and when not even one sample fits.
    """
    with mistakes_named(overrides), composed_by_hydra(overrides) as config:
        composed = to_composed(config, Path(tempfile.gettempdir()), started=time.monotonic())
    facts = hardware.probe()
    settings, world_size = settings_of_one_device(composed.settings, facts)
    preflight.check(replace(composed, settings=settings), facts)
    with quiet_lightning():
        parts = assembly.put_together(replace(composed, settings=settings), facts, [], open_console(quiet=True))
        share = parts.data.batch_size // world_size
        trials = Trials(parts.task, parts.data, parts.trainer, world_size=world_size, free=free or memory.free_bytes)
        tries = search(share, trials)
    size = best_of(tries, share)
    if not size:
        raise InputError(f"not even one sample fits ({tries[0].reason}); {memory.WAYS_OUT}")
    return Found(tuple(tries), size, share, describe(composed, parts, facts))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside, Lightning says nothing of the trainers that it is made to start over and over."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def describe(composed: Composed, parts: assembly.Parts, facts: hardware.Facts) -> str:
    """Data, model, precision and device that a limit is found for, and the day."""
    device, precision = parts.trainer.strategy.root_device, parts.choices["precision"].value
    name = facts.gpus[device.index or 0].name if device.type == "cuda" else device.type
    return f"data={composed.data} model={composed.model} precision {precision} on {name}, {date.today()}"


def settings_of_one_device(settings: Mapping[str, Any], facts: hardware.Facts) -> tuple[dict[str, Any], int]:
    """The settings for one device that takes its share of the batch at once, and in how many shares the batch is cut.

    Raises:
        InputError: when the strategy spreads the model itself, which one device cannot try out; as `hardware.accumulation`.
    """
    choices = assembly.plan_for(settings, facts)
    strategy, devices = choices["strategy"].value, choices["devices"].value
    if not isinstance(strategy, str) or not strategy.startswith(("auto", "single", "ddp")):
        raise InputError(
            f"trainer.strategy={strategy!r} spreads the model over devices, and largest-batch tries on one of them; halve "
            "data.max_batch_per_device by hand until a step fits, or try with strategy=ddp"
        )
    world_size = hardware.count_devices(devices) * choices["num_nodes"].value
    hardware.accumulation(settings["data"]["batch_size"], world_size, None)
    one = devices[:1] if isinstance(devices, list) else f"{devices.split(',')[0]}," if "," in str(devices) else 1
    trainer = {**settings["trainer"], **STEPS_ONLY, "devices": one}
    data = {**settings["data"], "max_batch_per_device": None}
    return {**settings, "trainer": trainer, "data": data, "callbacks": {}, "tracker": {}}, world_size


def search(share: int, attempt: Callable[[int], Try]) -> list[Try]:
    """The tries, in their order, that find the largest divisor of `share` that fits; `best_of` reads it from them."""
    tries: dict[int, Try] = {}

    def fits(size: int) -> bool:
        if size not in tries:
            tries[size] = attempt(size)
        return tries[size].fits

    doubled = [2**power for power in range(share.bit_length()) if 2**power < share]
    too_large = next((size for size in [*doubled, share] if not fits(size)), share + 1)
    fitting = max((size for size, tried in tries.items() if tried.fits), default=0)
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    between = [size for size in divisors if fitting < size < too_large]
    while between:
        middle = len(between) // 2
        if fits(between[middle]):
            between = between[middle + 1 :]
        else:
            too_large = between[middle]
            between = between[:middle]
    # doubling may have stepped over the divisor below: only what was tried is told
    any(fits(size) for size in reversed(divisors) if size < too_large)
    return list(tries.values())


def best_of(tries: list[Try], share: int) -> int:
    """The largest size that fits and cuts the share into equal parts; 0 when none does."""
    return max((tried.size for tried in tries if tried.fits and share % tried.size == 0), default=0)


class Trials:
    """Tries sizes with steps of real training: forward, backward, optimizer, in the trainer's precision.

    Args:
        task: what is trained; its weights are worth nothing afterwards.
        data: loaded for "fit".
        trainer: never run; every try runs a copy of it.
        world_size: processes of the run to come. With more than one, ddp's second copy of the gradients is held as well.
        free: bytes that may still be taken on the CPU.
    """

    def __init__(self, task: Task, data: DataModule, trainer: Trainer, *, world_size: int, free: Callable[[], int]) -> None:
        self.task, self.data, self.trainer = task, data, trainer
        self.world_size, self.free = world_size, free
        self.is_cpu = trainer.strategy.root_device.type == "cpu"
        self.trainer.callbacks = []  # type: ignore[attr-defined]  # nothing is to be saved or logged
        self._peaks: list[tuple[int, int]] = []

    def __call__(self, size: int) -> Try:
        """Trains on the `size` largest samples, or says why that does not fit."""
        if self.is_cpu:
            more = self.expected(size) - memory.resident_bytes()
            if more > FREE_SHARE * (free := self.free()):
                return Try(size, False, reason=f"not tried: expected to take {more / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free")
        steps = Steps(self.trainer.strategy.root_device, holds_buckets=self.world_size > 1)
        try:
            self._train(size, steps)
        except RuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            return Try(size, False, reason=memory.without_advice(error))
        finally:
            self._free()
        self._peaks.append((size, steps.peak_bytes))
        return Try(size, True, steps.step_s, steps.peak_bytes)

    def expected(self, size: int) -> float:
        """Bytes that this process will hold at most: growth goes on as lately, or as on the whole if that is steeper."""
        if not self._peaks:  # gradients and two moments for every weight are the least
            return memory.resident_bytes() + 3 * sum(weights.nbytes for weights in self.task.parameters())
        known = sorted(self._peaks)
        if len(known) == 1:
            known = [(0, memory.resident_bytes()), *known]
        (size_of_first, first), (size_before, before), (last, peak) = known[0], known[-2], known[-1]
        slope = max(0.0, (peak - first) / (last - size_of_first), (peak - before) / (last - size_before))
        return peak + slope * (size - last)

    def _train(self, size: int, steps: Steps) -> None:
        trainer = copy.deepcopy(self.trainer)
        trainer.callbacks.append(steps)  # type: ignore[attr-defined]
        try:
            trainer.fit(self.task, datamodule=LargestSamples(self.data, size))
        finally:
            trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = [], []

    def _free(self) -> None:
        """Gives back what a try held, so that it does not weigh on the next."""
        self.task.zero_grad(set_to_none=True)
        gc.collect()
        if not self.is_cpu and torch.cuda.is_available():
            torch.cuda.empty_cache()


class LargestSamples(LightningDataModule):
    """The same batch in every step, of the largest samples of the training split: no later batch of the size is larger."""

    def __init__(self, data: DataModule, size: int) -> None:
        super().__init__()
        self.data, self.size = data, size
        self.batch_size, self.seed, self.steps_per_epoch = data.batch_size, data.seed, NUM_STEPS  # a task asks for these

    def train_dataloader(self) -> Any:
        self.data.trainer = self.trainer  # from which it knows its device
        loader: Any = self.data.train_dataloader()
        if not isinstance(getattr(loader, "sampler", None), TrainOrder):
            raise InputError(f"largest-batch chooses the samples; {type(loader).__name__} has no TrainOrder as its sampler")
        lengths = getattr(loader.sampler, "lengths", None)  # images are all of one size
        largest = torch.arange(self.size) if lengths is None else lengths.argsort(descending=True)[: self.size]
        loader.sampler = SameBatch(largest)
        return loader

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)


class SameBatch(TrainOrder):
    """These rows as the batch of every step."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__(NUM_STEPS * len(rows), len(rows), seed=0)
        self.rows = rows

    def batches(self) -> Tensor:
        return self.rows.expand(NUM_STEPS, -1)


class Steps(Callback):
    """Seconds of the last step and the most memory of all."""

    def __init__(self, device: torch.device, *, holds_buckets: bool) -> None:
        self.device, self.holds_buckets = device, holds_buckets
        self.step_s, self.peak_bytes, self._began = 0.0, 0, 0.0
        self._buckets: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        memory.reset_peak(self.device)
        if self.holds_buckets:
            num_bytes = sum(weights.nbytes for weights in pl_module.parameters() if weights.requires_grad)
            self._buckets = torch.ones(num_bytes, dtype=torch.uint8, device=self.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._began = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.step_s = self._now() - self._began
        self.peak_bytes = memory.peak_bytes(self.device)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
