"""Rendezvous of the processes of a run: they meet, compare versions and config, and share what the first one decides.

Lightning starts torch.distributed's group inside `fit`: too late to agree on a run directory, and without an explanation for a
port in use or a process that never starts. Here the group is created first; Lightning finds and uses it.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from arclight.distributed.environment import Launch, interface_towards, slurm_master_address
from arclight.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

DEFAULT_PORT = 29500  # torch's own
POLL_S = 0.02


@dataclass(frozen=True)
class Peers:
    """The processes of a run; `rank` is this one, `store` is None where it is the only one."""

    rank: int = 0
    world_size: int = 1
    store: Store | None = None
    _counter: Iterator[int] = field(default_factory=itertools.count)

    def broadcast(self, value: Any) -> Any:
        """Returns the first process's value (plain data that JSON can hold) on every process; all of them must call it."""
        if self.store is None:
            return value
        key = f"broadcast/{next(self._counter)}"
        if self.rank == 0:
            self.store.set(key, json.dumps(value))
            return value
        return json.loads(self.store.get(key))

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """Checks that `facts`, plain data by name, are the same on every process.

        Raises:
            InputError: on every process, naming the processes that differ from the first, and both values.
        """
        if self.store is None:
            return
        self.store.set(f"facts/{self.rank}", json.dumps(dict(facts)))
        problems = []
        for rank in range(1, self.world_size) if self.rank == 0 else ():
            others = json.loads(self.store.get(f"facts/{rank}"))
            different = [name for name in sorted({*facts, *others}) if facts.get(name) != others.get(name)]
            problems += [f"process {rank} has {n} {others.get(n)}, process 0 has {facts.get(n)}" for n in different]
        if text := self.broadcast("\n".join(problems)):
            raise InputError(f"the processes of this run differ; start all of them from one checkout:\n{text}")


_current = Peers()


def broadcast(value: Any) -> Any:
    """Returns the first process's value on every process of the current run; see `Peers.broadcast`."""
    return _current.broadcast(value)


@contextmanager
def join(launch: Launch, *, backend: str, timeout_s: float) -> Iterator[Peers]:
    """Context manager that creates torch.distributed's group of the processes started together with this one.

    Args:
        launch: who started this process, and as which of how many.
        backend: of the group, "nccl" for CUDA devices, else "gloo".
        timeout_s: how long processes wait for each other, here and in every training step.

    Raises:
        InputError: when the port is in use, the address cannot be reached, or a process does not start.
    """
    global _current
    if launch.world_size == 1:
        yield Peers()
        return
    from torch.distributed.distributed_c10d import PrefixStore, destroy_process_group, init_process_group, is_initialized

    timeout = timedelta(seconds=timeout_s)
    store = _store_of_this_start(_connect(launch, timeout), launch, timeout_s)
    init_process_group(
        backend, store=PrefixStore("group", store), rank=launch.rank, world_size=launch.world_size, timeout=timeout
    )
    _current = Peers(launch.rank, launch.world_size, PrefixStore("peers", store))
    try:
        yield _current
    finally:
        _current = Peers()
        if is_initialized():
            destroy_process_group()


def _connect(launch: Launch, timeout: timedelta) -> Store:
    """Returns the key-value store of the processes; torchrun brings one, else the first process hosts it."""
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.rendezvous import rendezvous

    address, port = set_torchrun_variables(launch, os.environ)
    if launch.num_nodes > 1 and (interface := interface_towards(address)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
    except (DistNetworkError, DistStoreError, ConnectionError, socket.gaierror, ValueError) as error:
        reason = str(error).splitlines()[0]
        master = f"MASTER_ADDR={address} MASTER_PORT={port}"
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise InputError(
                f"MASTER_PORT={port} is in use by another program on this machine; set MASTER_PORT to a free port, the same "
                "for all processes of the run (torchrun: --master-port)"
            ) from error
        if launch.rank == 0:
            raise InputError(
                f"not all {launch.world_size} processes of the run connected to {master} within "
                f"hardware.timeout_s={timeout.total_seconds():g} seconds ({reason}); see the output of the others"
            ) from error
        raise InputError(
            f"process {launch.rank} of {launch.world_size} cannot connect to process 0 at {master} within "
            f"{timeout.total_seconds():.0f} s ({reason}); check that it is running and that no firewall blocks the port"
        ) from error
    return store


def set_torchrun_variables(launch: Launch, environment: MutableMapping[str, str]) -> tuple[str, str]:
    """Sets the variables of torchrun, whatever started the processes, so that torch and Lightning see one kind of launch.

    Returns:
        The master address and port.
    """
    master = ("127.0.0.1", str(DEFAULT_PORT))
    if launch.kind == "slurm" and "MASTER_ADDR" not in environment:
        master = slurm_master_address(environment)
    master = environment.setdefault("MASTER_ADDR", master[0]), environment.setdefault("MASTER_PORT", master[1])
    names = {
        **{"RANK": launch.rank, "LOCAL_RANK": launch.local_rank, "GROUP_RANK": launch.node_rank},
        **{"WORLD_SIZE": launch.world_size, "LOCAL_WORLD_SIZE": launch.local_world_size, "GROUP_WORLD_SIZE": launch.num_nodes},
        **{"TORCHELASTIC_RESTART_COUNT": launch.restart_count, "TORCHELASTIC_RUN_ID": launch.run_id or launch.kind},
    }
    environment.update({name: str(value) for name, value in names.items()})
    return master


def _store_of_this_start(store: Store, launch: Launch, timeout_s: float) -> Store:
    """Returns a part of the store that only this start of the processes uses, once all of them have connected.

    After a restart, torchrun's store still holds what the earlier processes wrote. So each process writes a random token, and
    the first answers it with the random name of the new part.

    Raises:
        InputError: naming the processes that did not connect in time.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    deadline = time.monotonic() + timeout_s
    limit = f"within hardware.timeout_s={timeout_s:g} seconds"
    if launch.rank:
        token = uuid.uuid4().hex
        store.set(f"token/{launch.rank}", token)
        while not store.check([f"answer/{token}"]):
            if time.monotonic() > deadline:
                raise InputError(f"process 0 of {launch.world_size} did not connect {limit}")
            time.sleep(POLL_S)
        name = store.get(f"answer/{token}").decode()
        store.set(f"{name}/{launch.rank}", "")
        return PrefixStore(name, store)
    name = uuid.uuid4().hex
    missing = set(range(1, launch.world_size))
    while missing and time.monotonic() < deadline:
        for rank in missing:
            if store.check([f"token/{rank}"]):
                store.set(f"answer/{store.get(f'token/{rank}').decode()}", name)
        time.sleep(POLL_S)
        missing = {rank for rank in missing if not store.check([f"{name}/{rank}"])}
    if missing:
        raise InputError(
            f"process {', '.join(map(str, sorted(missing)))} of {launch.world_size} did not connect {limit}; see its output, "
            "or raise the limit"
        )
    return PrefixStore(name, store)
