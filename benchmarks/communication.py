"""Measures how long the processes of a ddp run spend in communication, in the run itself, after its last step.

`+callbacks.communication._target_=benchmarks.communication.CommunicationTime` adds it to any ddp run. Training is not touched.
Afterwards, with net, batch and processes still there, forward and backward passes run in alternating blocks, with gradients
synchronized and without (no_sync). `communication.json` in the run directory holds

    world_size, gradient_bytes, num_buckets
    with_ms, without_ms     of one forward and backward pass, one value per block; their difference is what is not hidden
    in_flight_ms            per pass with communication: time during which at least one bucket was in flight, hidden or not
    all_reduce_ms           of as many bytes as the gradients have, alone, one value per block
"""

# no `from __future__ import annotations`: DDP reads the hook's annotations and needs classes, not their names
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

NUM_BLOCKS = 5
NUM_STEPS = 3  # in a block
NUM_WARMUP = 2  # passes of each kind that are not counted


class BucketClock:
    """Times every bucket of gradients from the moment it is ready to the moment it is summed over the processes.

    `all_reduce` replaces DDP's own hook and does the same.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[Any, Any]] = []
        self._origin: Any = None

    def start(self) -> None:
        """Clears the buckets; times count from here."""
        self._spans = []
        self._origin = self._now()

    def all_reduce(self, state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Hook for DistributedDataParallel.register_comm_hook."""
        ready = self._now()

        def record(done: torch.futures.Future[Tensor]) -> Tensor:
            # on a GPU this runs at once, on a stream that waits for the sum; the event is recorded there
            summed = done.value()
            self._spans.append((ready, self._now()))
            return summed[0] if isinstance(summed, list) else summed

        summing: torch.futures.Future[Tensor] = allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]
        return summing.then(record)

    @property
    def num_buckets(self) -> int:
        """Number of buckets since the start."""
        return len(self._spans)

    def in_flight_s(self) -> float:
        """Returns the seconds since the start during which at least one bucket was in flight; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return length_of_union([(self._seconds(ready), self._seconds(done)) for ready, done in self._spans])

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, moment: Any) -> float:
        if self._device.type != "cuda":
            return float(moment - self._origin)
        return float(self._origin.elapsed_time(moment)) / 1000


def length_of_union(spans: list[tuple[float, float]]) -> float:
    """Returns the length of the union of the spans."""
    covered, end = 0.0, float("-inf")
    for begin, stop in sorted(spans):
        covered += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return covered


class CommunicationTime(Callback):
    """Writes communication.json into the run directory of a ddp run of several processes; does nothing in other runs."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: Any = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        net = trainer.strategy.model
        if not isinstance(net, DistributedDataParallel) or trainer.world_size == 1 or self._batch is None:
            return
        device = trainer.strategy.root_device
        clock = BucketClock(device)
        net.register_comm_hook(None, clock.all_reduce)

        def one_pass() -> None:
            with torch.enable_grad():
                loss = trainer.strategy.training_step(self._batch)
                assert isinstance(loss, Tensor)
                loss.backward()
            pl_module.zero_grad(set_to_none=True)

        measured = measure(one_pass, net, clock, device)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            (folder / "communication.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def measure(
    one_pass: Callable[[], None], net: DistributedDataParallel, clock: BucketClock, device: torch.device
) -> dict[str, Any]:
    """Returns the content of communication.json; every process must call it."""
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters() if parameter.requires_grad)
    with_ms: list[float] = []
    without_ms: list[float] = []
    in_flight_ms: list[float] = []
    all_reduce_ms: list[float] = []
    message = torch.zeros(gradients, dtype=torch.uint8, device=device).view(
        torch.float32 if gradients % 4 == 0 else torch.uint8
    )
    for block in range(-1, NUM_BLOCKS):
        for context, times in ((nullcontext, with_ms), (net.no_sync, without_ms)):
            clock.start()
            seconds = timed(one_pass, NUM_WARMUP if block < 0 else NUM_STEPS, context, device)
            if block >= 0:
                times.append(1000 * seconds / NUM_STEPS)
                if context is nullcontext:
                    in_flight_ms.append(1000 * clock.in_flight_s() / NUM_STEPS)
                    num_buckets = clock.num_buckets // NUM_STEPS
        seconds = timed(lambda: dist.all_reduce(message), NUM_STEPS, nullcontext, device)
        if block >= 0:
            all_reduce_ms.append(1000 * seconds / NUM_STEPS)
    return {
        "world_size": dist.get_world_size(),
        "gradient_bytes": gradients,
        "num_buckets": num_buckets,
        "with_ms": with_ms,
        "without_ms": without_ms,
        "in_flight_ms": in_flight_ms,
        "all_reduce_ms": all_reduce_ms,
    }


def timed(
    call: Callable[[], object], num_calls: int, context: Callable[[], AbstractContextManager[None]], device: torch.device
) -> float:
    """Returns the seconds of the calls in the context, from a barrier until this process's device has finished."""
    dist.barrier()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(num_calls):
        with context():
            call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
