"""Processes of a run meet, compare and share values, and report what prevents it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from torch.distributed import HashStore, PrefixStore, Store

from arclight.distributed import rendezvous
from arclight.distributed.environment import Launch, detect_launch, first_slurm_node
from arclight.distributed.rendezvous import Peers
from arclight.errors import InputError


@pytest.fixture(autouse=True)
def _environment_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


def on_each(world_size: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(work, range(world_size)))


def launch(rank: int, world_size: int) -> Launch:
    return Launch(kind="torchrun", rank=rank, world_size=world_size, local_world_size=world_size)


def test_one_process_needs_no_group() -> None:
    with rendezvous.join(Launch(), backend="gloo", timeout_s=1) as peers:
        peers.require_equal({"torch": "2"})
        assert peers.broadcast("outputs/x") == "outputs/x"


def test_broadcast_returns_the_value_of_the_first_process() -> None:
    store = HashStore()
    heard = on_each(3, lambda rank: Peers(rank, 3, store).broadcast({"path": f"of {rank}"}))
    assert heard == [{"path": "of 0"}] * 3


def test_processes_that_differ_are_named_on_all() -> None:
    store = HashStore()
    facts = [{"torch": "2.13", "seed": 0}, {"torch": "2.13", "seed": 0}, {"torch": "2.12", "seed": 1, "new": True}]

    def compare(rank: int) -> str:
        with pytest.raises(InputError) as message:
            Peers(rank, 3, store).require_equal(facts[rank])
        return str(message.value)

    messages = on_each(3, compare)
    assert len(set(messages)) == 1
    assert "process 2 has torch 2.12, process 0 has 2.13" in messages[0]
    assert "process 2 has seed 1, process 0 has 0" in messages[0]
    assert "process 2 has new True, process 0 has None" in messages[0]
    assert "process 1" not in messages[0]


def test_equal_processes_continue() -> None:
    store = HashStore()
    assert on_each(3, lambda rank: Peers(rank, 3, store).require_equal({"torch": "2.13"})) == [None] * 3


def test_a_second_start_does_not_read_what_the_first_wrote() -> None:
    store = HashStore()

    def meet(rank: int) -> str:
        own = rendezvous._store_of_this_start(store, launch(rank, 3), 10)
        assert not own.check(["step"])
        heard = Peers(rank, 3, PrefixStore("peers", own)).broadcast(f"{id(own)}")
        own.set("step", "1")
        return str(heard)

    first, second = on_each(3, meet), on_each(3, meet)
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_a_missing_process_is_named() -> None:
    store: Store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(rendezvous._store_of_this_start, store, launch(0, 3), 1)
        second = pool.submit(rendezvous._store_of_this_start, store, launch(1, 3), 1)
        with pytest.raises(InputError, match="process 2 of 3 did not connect within hardware.timeout_s=1 seconds"):
            first.result()
        second.result()
    with pytest.raises(InputError, match="process 0 of 2 did not connect within hardware.timeout_s=0.1 seconds"):
        rendezvous._store_of_this_start(HashStore(), launch(1, 2), 0.1)


def test_a_port_in_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)), ("RANK", "0"), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(
                InputError,
                match=f"MASTER_PORT={port} is in use .*; set MASTER_PORT to a free port",
            ),
            rendezvous.join(launch(0, 2), backend="gloo", timeout_s=2),
        ):
            pass


@pytest.mark.parametrize("port", ["1", "99999", "x"])
@pytest.mark.processes
def test_an_unreachable_first_process_is_an_error(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(
            InputError, match=f"process 1 of 2 cannot connect to process 0 at MASTER_ADDR=127.0.0.1 MASTER_PORT={port}"
        ),
        rendezvous.join(launch(1, 2), backend="gloo", timeout_s=1),
    ):
        pass


def test_torch_sees_one_kind_of_launch() -> None:
    environment = {"SLURM_JOB_ID": "77812", "SLURM_JOB_NODELIST": "gpu[07-09,12],login1"}
    started = Launch(
        kind="slurm", rank=9, local_rank=1, world_size=16, local_world_size=8, node_rank=1, num_nodes=2, run_id="77812"
    )
    assert rendezvous.set_torchrun_variables(started, environment) == ("gpu07", "22812")
    assert detect_launch(environment) == replace(started, kind="torchrun")
    given = {"MASTER_ADDR": "here", "MASTER_PORT": "1234", "SLURM_JOB_ID": "1"}
    assert rendezvous.set_torchrun_variables(started, given) == ("here", "1234")
    assert rendezvous.set_torchrun_variables(Launch(kind="mpi", world_size=2), {}) == ("127.0.0.1", "29500")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node07", "node07"),
        ("node[07-08]", "node07"),
        ("a[1,3-5]x,b2", "a1x"),
        ("alpha,beta", "alpha"),
        ("alpha beta", "alpha"),
    ],
)
def test_the_first_node_of_slurms_list(nodes: str, first: str) -> None:
    assert first_slurm_node(nodes) == first
