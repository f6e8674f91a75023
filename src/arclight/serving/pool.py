"""A served run: a bounded queue of inputs, and worker processes that take batches from it and are restarted when they die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from arclight.errors import InputError
from arclight.serving.frames import pack, receive
from arclight.serving.worker import MODULE

MAX_ATTEMPTS = 2  # batches that an input may be in when a worker dies
LONGEST_PAUSE_S = 30.0  # between restarts of a worker that answers nothing
START_TIMEOUT_S = 600.0

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """An input that the server does not take now; `retry_after` is in seconds, `is_full` means that the queue is."""

    def __init__(self, reason: str, *, retry_after: int, is_full: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.is_full = is_full


class FailedError(Exception):
    """An input that ended its worker more than once."""


@dataclass(frozen=True)
class WorkerSettings:
    """How the workers of a run compute.

    Args:
        workers: processes, each with the whole model.
        device: as `Run.predict` takes it.
        batch_size: inputs in a forward pass, and at most in a batch.
        threads: of a forward pass on the CPU; 0 shares the cores among the workers.
        max_queue: inputs that may wait; more are refused.
        batch_timeout_s: a worker that takes longer for a batch is killed.
    """

    workers: int = 1
    device: str = "auto"
    batch_size: int = 32
    threads: int = 0
    max_queue: int = 256
    batch_timeout_s: float = 60.0


@dataclass(eq=False)
class Pending:
    """An input that waits for its records."""

    name: str
    kind: str  # "file" or "json"
    payload: bytes
    top_k: int | None
    records: asyncio.Future[list[dict[str, Any]]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    attempts: int = 0


class WorkerPool:
    """The worker processes of one run and the queue in front of them.

    Args:
        run: run directory or checkpoint file.
        settings: of the workers.
        metrics: counters of the server, see `arclight.serving.metrics`; labelled `name`.
        name: of the run at this server.
    """

    def __init__(self, run: str, settings: WorkerSettings, metrics: Any, name: str) -> None:
        self.run, self.settings, self.metrics, self.name = run, settings, metrics, name
        self.description: dict[str, Any] = {}
        self.num_ready = 0
        self._waiting: deque[Pending] = deque()
        self._changed = asyncio.Condition()
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._seconds_per_input = 0.01  # running mean, for Retry-After

    async def start(self) -> None:
        """Starts the workers and waits until each has loaded the run; raises InputError when it cannot be loaded."""
        processes = await asyncio.gather(*(self._start_worker() for _ in range(self.settings.workers)), return_exceptions=True)
        if errors := [process for process in processes if isinstance(process, BaseException)]:
            for process in processes:
                if isinstance(process, Process):
                    await end(process)
            raise errors[0]
        self._tasks = [asyncio.create_task(self._keep(process)) for process in processes if isinstance(process, Process)]

    async def submit(self, inputs: Sequence[Pending]) -> None:
        """Queues inputs, whose `records` are set later; raises RefusedError when they do not fit or nothing can answer them."""
        async with self._changed:
            if self._is_stopping:
                raise RefusedError("the server is stopping", retry_after=5)
            if not self.num_ready:
                raise RefusedError("the workers are being restarted", retry_after=5)
            if len(self._waiting) + len(inputs) > self.settings.max_queue:
                wait_s = len(self._waiting) * self._seconds_per_input / self.settings.workers
                raise RefusedError("the queue is full", retry_after=max(1, math.ceil(wait_s)), is_full=True)
            self._waiting.extend(inputs)
            self._report_queue()
            self._changed.notify_all()

    async def stop(self) -> None:
        """Answers what is queued, then ends the workers."""
        async with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in self._waiting:
            if not pending.records.done():
                pending.records.set_exception(RefusedError("the server is stopping", retry_after=5))

    async def _start_worker(self) -> Process:
        threads = self.settings.threads or max(1, (os.cpu_count() or 1) // self.settings.workers)
        given = {
            "run": self.run,
            "device": self.settings.device,
            "batch_size": self.settings.batch_size,
            "threads": threads,
            "parent": os.getpid(),
        }
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", MODULE, json.dumps(given), stdin=PIPE, stdout=PIPE, env=environment
        )
        try:
            assert process.stdout is not None
            description = await asyncio.wait_for(receive(process.stdout), START_TIMEOUT_S)
            if "error" in description:
                raise InputError(description["error"])
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            await end(process)
            raise InputError(f"{self.run}: its worker process ended while loading it; its output is above") from error
        except BaseException:
            await end(process)
            raise
        description.pop("sizes")
        self.description = description
        self.num_ready += 1
        return process

    async def _keep(self, process: Process | None) -> None:
        """Lets a worker answer batches until the pool stops; starts another one in its place when it dies."""
        pause_s = 0.0
        while True:
            try:
                if process is None:
                    await asyncio.sleep(pause_s)
                    process = await self._start_worker()
                while batch := await self._next_batch():
                    await self._answer(process, batch)
                    pause_s = 0.0
                self.num_ready -= 1
                await end(process)
                return
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, InputError) as error:
                log.error("a worker of %s died (%s); it is restarted", self.name, type(error).__name__)
                self.metrics.restarts.labels(self.name).inc()
                if process is not None:
                    self.num_ready -= 1
                    await end(process)
                if self._is_stopping and (process is None or not self._waiting):
                    return
                process, pause_s = None, min(LONGEST_PAUSE_S, 2 * pause_s + 0.5)

    async def _next_batch(self) -> list[Pending]:
        """Returns inputs with one `top_k`, waiting for the first; those that were in a batch of a worker that died come alone.

        There is no waiting for more: while all workers compute, the next batch fills up by itself.
        """
        async with self._changed:
            while True:
                while self._waiting and self._waiting[0].records.done():  # its request has timed out
                    self._waiting.popleft()
                if self._waiting:
                    break
                if self._is_stopping:
                    return []
                await self._changed.wait()
            batch = [self._waiting.popleft()]
            while self._waiting and len(batch) < self.settings.batch_size and not batch[0].attempts:
                if self._waiting[0].attempts or self._waiting[0].top_k != batch[0].top_k:
                    break
                if not (pending := self._waiting.popleft()).records.done():
                    batch.append(pending)
            self._report_queue()
            return batch

    async def _answer(self, process: Process, batch: list[Pending]) -> None:
        """Sets the records of a batch; where the worker dies, queues it again and raises."""
        assert process.stdin is not None
        assert process.stdout is not None
        header = {"names": [one.name for one in batch], "kinds": [one.kind for one in batch], "top_k": batch[0].top_k}
        began = time.monotonic()
        try:
            process.stdin.write(pack(header, [one.payload for one in batch]))
            async with asyncio.timeout(self.settings.batch_timeout_s):
                await process.stdin.drain()
                reply = await receive(process.stdout)
        except BaseException:
            self._put_back(batch)
            raise
        seconds = time.monotonic() - began
        self._seconds_per_input += 0.1 * (seconds / len(batch) - self._seconds_per_input)
        self.metrics.batch_size.labels(self.name).observe(len(batch))
        self.metrics.compute_seconds.labels(self.name).observe(seconds)
        for pending, records in zip(batch, reply["records"], strict=True):
            if not pending.records.done():
                pending.records.set_result(records)

    def _put_back(self, batch: list[Pending]) -> None:
        for pending in reversed(batch):
            pending.attempts += 1
            if pending.records.done():
                continue
            if pending.attempts >= MAX_ATTEMPTS:
                pending.records.set_exception(FailedError(f"{pending.name} ended its worker process {pending.attempts} times"))
            else:
                self._waiting.appendleft(pending)

    def _report_queue(self) -> None:
        self.metrics.queue.labels(self.name).set(len(self._waiting))


async def end(process: Process) -> None:
    """Ends a worker: by closing its input, else by SIGKILL after a second."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 1)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
