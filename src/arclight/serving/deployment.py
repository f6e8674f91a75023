"""The runs behind one server by name; a run that a pointer file names is replaced when the file changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from arclight.config.locations import find_run
from arclight.errors import InputError
from arclight.serving.metrics import Metrics
from arclight.serving.pool import Pending, RefusedError, WorkerPool, WorkerSettings

REGISTRY = Path("registry")
MAX_POINTER_BYTES = 4096
LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)


class ServedRun:
    """A run at a server.

    Args:
        name: in the address.
        source: run directory, checkpoint file, or pointer file: one line, the path of a run.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.pointer = pointer_file(source)
        self.source = source
        self.pool: WorkerPool | None = None

    def target(self) -> str:
        """Returns the run that is to be served now; raises InputError when there is none."""
        return resolve(read_pointer(self.pointer) if self.pointer else self.source)


class Deployment:
    """The served runs, by name.

    Args:
        runs: each "RUN" or "NAME=RUN".
        settings: of their workers.
    """

    def __init__(self, runs: Sequence[str], settings: WorkerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.runs: dict[str, ServedRun] = {}
        for given in runs:
            served = ServedRun(*name_and_source(given))
            if served.name in self.runs:
                raise InputError(f"two runs are named '{served.name}'; name them: serve first={given} second=...")
            served.target()  # before anything is imported
            self.runs[served.name] = served
        self.is_draining = False  # whether each connection ends with its next answer
        self._watcher: asyncio.Task[None] | None = None
        self._replaced: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Loads all runs, once; raises InputError when one cannot be loaded."""
        if self._watcher is not None:
            return
        for served in self.runs.values():
            served.pool = await self._load(served, served.target())
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Answers what is queued and ends all workers."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        pools = [served.pool for served in self.runs.values() if served.pool is not None]
        await asyncio.gather(*(pool.stop() for pool in pools), *self._replaced)

    @property
    def is_ready(self) -> bool:
        """Whether every run has a worker that can answer."""
        return all(served.pool is not None and served.pool.num_ready > 0 for served in self.runs.values())

    async def submit(self, name: str, inputs: Sequence[Pending]) -> None:
        """Queues inputs for a run; raises RefusedError as `WorkerPool.submit` does."""
        while True:
            pool = self.runs[name].pool
            if pool is None:
                raise RefusedError("the run is being loaded", retry_after=5)
            try:
                return await pool.submit(inputs)
            except RefusedError:
                if pool is self.runs[name].pool:  # else it was replaced in this moment
                    raise

    def note_answer(self, path_parameters: Mapping[str, str], answer: MutableMapping[str, Any]) -> None:
        """Counts an answer about a run, not about names that clients invent; ends each connection while the server stops."""
        if (name := path_parameters.get("name")) in self.runs:
            self.metrics.requests.labels(name, answer["status"]).inc()
        if self.is_draining:
            answer["headers"] = [*answer.get("headers", ()), (b"connection", b"close")]

    async def _load(self, served: ServedRun, target: str) -> WorkerPool:
        pool = WorkerPool(target, self.settings, self.metrics, served.name)
        await pool.start()
        log.info("%s: serves %s on %s", served.name, target, pool.description["device"])
        return pool

    async def _watch(self) -> None:
        """Replaces runs whose pointer files have changed; the old one answers what it has accepted."""
        refused: dict[str, str] = {}  # by name, so that each is reported once
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for served in self.runs.values():
                if served.pointer is None or served.pool is None:
                    continue
                target = ""
                try:
                    target = served.target()
                    if target in (served.pool.run, refused.get(served.name)):
                        continue
                    pool = await self._load(served, target)
                except InputError as error:
                    if refused.get(served.name) != target:
                        log.error("%s: keeps %s: %s", served.name, served.pool.run, error)
                        self.metrics.reloads.labels(served.name, "failed").inc()
                    refused[served.name] = target
                    continue
                refused.pop(served.name, None)
                old, served.pool = served.pool, pool
                self.metrics.reloads.labels(served.name, "ok").inc()
                task = asyncio.create_task(old.stop())
                self._replaced.add(task)
                task.add_done_callback(self._replaced.discard)


def name_and_source(given: str) -> tuple[str, str]:
    """Returns the name and the source of "NAME=RUN", or of "RUN", whose name is that of its pointer or run directory."""
    name, equals, source = given.partition("=")
    if equals and name and "/" not in name and not Path(given).exists():
        return name, source
    if pointer := pointer_file(given):
        return pointer.name, given
    path = Path(resolve(given))
    folder = path.parent.parent if path.suffix == ".ckpt" and path.parent.name == "checkpoints" else path
    return folder.stem if folder.suffix == ".ckpt" else folder.name, given


def pointer_file(source: str) -> Path | None:
    """Returns the pointer file that is meant, by its path or by its name in registry/; None for a run."""
    path = Path(source)
    if path.is_file() and path.suffix != ".ckpt":
        return path
    named = REGISTRY / source
    return named if not path.exists() and named.is_file() else None


def read_pointer(file: Path) -> str:
    """Returns the run that a pointer file names; raises InputError when it does not hold one line."""
    try:
        with file.open(encoding="utf-8") as opened:
            lines = opened.read(MAX_POINTER_BYTES).strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if len(lines) != 1:
        raise InputError(f"{file} must hold one line, the path of a run; it has {len(lines)}")
    return lines[0].strip()


def resolve(run: str) -> str:
    """Returns the path of a run directory or checkpoint file; raises InputError when there is no such run."""
    path = Path(run)
    return str(path if path.suffix == ".ckpt" and path.is_file() else find_run(run))
