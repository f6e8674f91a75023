"""How the processes of a run meet: who they are, whether they are alike, and what the first of them decides for all.

Lightning starts torch.distributed's group inside `fit`, which is too late to agree on a run folder and too quiet about a port
that is taken or a process that never comes. Here the group is made first; Lightning finds it and takes it as it is.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from arclight.distributed.environment import Launch, first_slurm_node, interface_towards, slurm_port
from arclight.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

DEFAULT_PORT = 29500  # torch's own
POLL_S = 0.02  # between two looks for a process that has not come yet


@dataclass(frozen=True)
class Peers:
    """The processes of a run, from the view of the one with this `rank`; `store` is None where it is the only one."""

    rank: int = 0
    world_size: int = 1
    store: Store | None = None

    def hear(self, key: str, value: Any) -> Any:
        """The value that the first process gives, on every process; plain data that JSON can hold."""
        if self.store is None:
            return value
        if self.rank == 0:
            self.store.set(key, json.dumps(value))
            return value
        return json.loads(self.store.get(key))

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Makes sure that every process runs the same versions and the same config.

        Args:
            facts: what must be alike, by name; plain data.

        Raises:
            InputError: on every process, naming the processes that differ from the first, in what, and both values.
        """
        if self.store is None:
            return
        self.store.set(f"facts/{self.rank}", json.dumps(dict(facts)))
        verdict = ""
        if self.rank == 0:
            told = (
                f"process {rank} {problem}" for rank in range(1, self.world_size) for problem in self._differences(facts, rank)
            )
            verdict = "\n".join(told)
        if verdict := self.hear("verdict", verdict):
            raise InputError(f"the processes of this run are not alike; start all of them from one checkout:\n{verdict}")

    def _differences(self, facts: Mapping[str, Any], rank: int) -> Iterator[str]:
        assert self.store is not None
        others = json.loads(self.store.get(f"facts/{rank}"))
        for name in sorted({*facts, *others}):
            if facts.get(name) != others.get(name):
                yield f"has {name} {others.get(name)}, process 0 has {facts.get(name)}"


@contextmanager
def join(launch: Launch, *, backend: str, timeout_s: float) -> Iterator[Peers]:
    """Inside, the processes that this one was started with can reach each other; torch.distributed's group is there.

    Args:
        launch: who started this process, and as which of how many.
        backend: of the group, "nccl" for CUDA devices, else "gloo".
        timeout_s: how long processes wait for each other, here and in every step of the training.

    Raises:
        InputError: when the port is taken, the address is not this machine's or cannot be reached, or a process does not come.
    """
    if launch.world_size == 1:
        yield Peers()
        return
    from torch.distributed.distributed_c10d import PrefixStore, destroy_process_group, init_process_group, is_initialized

    timeout = timedelta(seconds=timeout_s)
    store = _gather(_meet(launch, timeout), launch, timeout_s)
    init_process_group(
        backend, store=PrefixStore("group", store), rank=launch.rank, world_size=launch.world_size, timeout=timeout
    )
    try:
        yield Peers(launch.rank, launch.world_size, PrefixStore("peers", store))
    finally:
        if is_initialized():
            destroy_process_group()


def _meet(launch: Launch, timeout: timedelta) -> Store:
    """The store in which the processes leave each other messages; torchrun brings one, else the first process holds it."""
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.rendezvous import rendezvous

    place = tell_torch(launch, os.environ)
    if launch.num_nodes > 1 and (interface := interface_towards(place[0])):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
    except (DistNetworkError, DistStoreError, ConnectionError, socket.gaierror, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise InputError(
                f"MASTER_PORT={place[1]} is taken on this machine by another program; set MASTER_PORT to a free port, the same "
                "for all processes of the run (torchrun: --master-port)"
            ) from error
        if launch.rank == 0:
            raise InputError(
                f"not all {launch.world_size} processes of the run came to MASTER_ADDR={place[0]} MASTER_PORT={place[1]} "
                f"within hardware.timeout_s={timeout.total_seconds():g} seconds ({reason}); look at what the others printed"
            ) from error
        raise InputError(
            f"process {launch.rank} of {launch.world_size} cannot reach the first one at MASTER_ADDR={place[0]} "
            f"MASTER_PORT={place[1]} within {timeout.total_seconds():.0f} s ({reason}); is it started, and does no firewall "
            "stand between?"
        ) from error
    return store


def tell_torch(launch: Launch, environment: MutableMapping[str, str]) -> tuple[str, str]:
    """Sets the variables of torchrun, so that torch and Lightning see one kind of launch whatever has started the processes.

    Returns:
        Address and port where the processes meet.
    """
    meeting = ("127.0.0.1", str(DEFAULT_PORT))
    if launch.kind == "slurm" and "MASTER_ADDR" not in environment:
        meeting = slurm_meeting(environment)
    place = environment.setdefault("MASTER_ADDR", meeting[0]), environment.setdefault("MASTER_PORT", meeting[1])
    names = {
        **{"RANK": launch.rank, "LOCAL_RANK": launch.local_rank, "GROUP_RANK": launch.node_rank},
        **{"WORLD_SIZE": launch.world_size, "LOCAL_WORLD_SIZE": launch.local_world_size, "GROUP_WORLD_SIZE": launch.num_nodes},
        **{"TORCHELASTIC_RESTART_COUNT": launch.restart_count, "TORCHELASTIC_RUN_ID": launch.run_id or launch.kind},
    }
    environment.update({name: str(value) for name, value in names.items()})
    return place


def slurm_meeting(environment: Mapping[str, str]) -> tuple[str, str]:
    """Address and port where the processes of a SLURM job meet."""
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    return first_slurm_node(nodes), str(slurm_port(environment.get("SLURM_JOB_ID", "0")))


def _gather(store: Store, launch: Launch, timeout_s: float) -> Store:
    """A part of the store that only the processes of this start use, once all of them have come.

    When some processes die and all are started again, torchrun's store still holds what the former ones wrote, and nothing
    tells the two apart. So each process leaves a word of its own, and the first answers it with the name of the new part.

    Raises:
        InputError: naming the processes that have not come in time.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    ends = time.monotonic() + timeout_s
    if launch.rank:
        word = uuid.uuid4().hex
        store.set(f"word/{launch.rank}", word)
        name = _wait_for(store, f"answer/{word}", ends)
        if name is None:
            raise InputError(f"process 0 of {launch.world_size} did not come within hardware.timeout_s={timeout_s:g} seconds")
        store.set(f"{name}/{launch.rank}", "")
        return PrefixStore(name, store)
    name = uuid.uuid4().hex
    absent = set(range(1, launch.world_size))
    while absent and time.monotonic() < ends:
        for rank in absent:
            if store.check([f"word/{rank}"]):
                store.set(f"answer/{store.get(f'word/{rank}').decode()}", name)
        time.sleep(POLL_S)
        absent = {rank for rank in absent if not store.check([f"{name}/{rank}"])}
    if absent:
        raise InputError(
            f"process {', '.join(map(str, sorted(absent)))} of {launch.world_size} did not come within "
            f"hardware.timeout_s={timeout_s:g} seconds; look at what it printed, or raise the limit"
        )
    return PrefixStore(name, store)


def _wait_for(store: Store, key: str, ends: float) -> str | None:
    """The value of a key once it is there; None when it does not come before `ends` on the monotonic clock."""
    while time.monotonic() < ends:
        if store.check([key]):
            return store.get(key).decode()
        time.sleep(POLL_S)
    return None
