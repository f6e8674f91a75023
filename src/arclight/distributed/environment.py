"""Detects who started this process: torchrun, SLURM, MPI or nobody; its rank and the way to the other processes."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import psutil

from arclight.errors import InputError

# Source: the variables that Lightning 2.6.6 reads in lightning/fabric/plugins/environments/, and those that torchrun sets
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
OWN = "ARCLIGHT_COMPOSED"  # set by arclight's launcher
INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which a person types


@dataclass(frozen=True)
class Launch:
    """The rank of this process among those started with it; with kind "none" it is alone, and may start others.

    `restart_count` is how often the launcher has restarted the run, `run_id` the name that all its processes share. `is_own`
    says that arclight's launcher started them, by the engine of torchrun.
    """

    kind: Literal["none", "torchrun", "slurm", "mpi"] = "none"
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0
    num_nodes: int = 1
    restart_count: int = 0
    run_id: str = ""
    is_own: bool = False

    @property
    def name(self) -> str:
        """Who started the processes, for messages."""
        return "arclight" if self.is_own else self.kind

    @property
    def fixes_processes(self) -> bool:
        """Whether all processes are started; with one SLURM task per node, the task starts the others."""
        return self.kind in ("torchrun", "mpi") or (self.kind == "slurm" and self.local_world_size > 1)


def detect_launch(environment: Mapping[str, str]) -> Launch:
    """Returns the launch by its environment variables; torchrun inside a SLURM job is torchrun.

    Raises:
        InputError: when a variable that must be a number is not one.
    """
    if "TORCHELASTIC_RUN_ID" in environment or all(name in environment for name in TORCHRUN):
        return torchrun(environment)
    is_interactive = environment.get("SLURM_JOB_NAME") in INTERACTIVE
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not is_interactive:
        return slurm(environment)
    if "OMPI_COMM_WORLD_RANK" in environment or "PMI_RANK" in environment:
        return mpi(environment)
    return Launch()


def torchrun(environment: Mapping[str, str]) -> Launch:
    """Returns the launch by the variables of torchrun, static or elastic."""
    world_size = number(environment, "WORLD_SIZE", default=1)
    num_nodes = number(environment, "GROUP_WORLD_SIZE", default=1) or 1
    return Launch(
        kind="torchrun",
        rank=number(environment, "RANK", default=0),
        local_rank=number(environment, "LOCAL_RANK", default=0),
        world_size=world_size,
        local_world_size=number(environment, "LOCAL_WORLD_SIZE", default=max(1, world_size // num_nodes)),
        node_rank=number(environment, "GROUP_RANK", default=0),
        num_nodes=num_nodes,
        restart_count=number(environment, "TORCHELASTIC_RESTART_COUNT", default=0),
        run_id=environment.get("TORCHELASTIC_RUN_ID", ""),
        is_own=OWN in environment,
    )


def slurm(environment: Mapping[str, str]) -> Launch:
    """Returns the launch by the variables of srun."""
    world_size = number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", default=1)
    num_nodes = number(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", default=1) or 1
    node_rank = number(environment, "SLURM_NODEID", default=0)
    local_world_size = (
        tasks_of_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""), node_rank)
        or number(environment, "SLURM_NTASKS_PER_NODE", default=0)
        or tasks_of_node(environment.get("SLURM_TASKS_PER_NODE", ""), node_rank)
        or max(1, world_size // num_nodes)
    )
    return Launch(
        kind="slurm",
        rank=number(environment, "SLURM_PROCID", default=0),
        local_rank=number(environment, "SLURM_LOCALID", default=0),
        world_size=world_size,
        local_world_size=min(local_world_size, world_size),
        node_rank=node_rank,
        num_nodes=num_nodes,
        restart_count=number(environment, "SLURM_RESTART_COUNT", default=0),
        run_id=environment.get("SLURM_JOB_ID", ""),
    )


def tasks_of_node(tasks: str, node_rank: int) -> int | None:
    """Returns the tasks of a node in SLURM's list, such as "8(x2),4": 8 on the first two nodes, 4 on the third; else None."""
    first = 0
    for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        first += int(repeats or 1)
        if node_rank < first:
            return int(count)
    return None


def first_slurm_node(nodes: str) -> str:
    """Returns the first node of SLURM's list, such as "node07" of "node[07-09,12],login1".

    Source: Lightning 2.6.6, SLURMEnvironment.resolve_root_node_address.
    """
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes).replace(" ", ",").partition(",")[0]


def slurm_master_address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Returns the first node of a SLURM job, and a port that two jobs on one machine seldom share."""
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    return first_slurm_node(nodes), str(15000 + int(environment.get("SLURM_JOB_ID", "0")[-4:]))


def mpi(environment: Mapping[str, str]) -> Launch:
    """Returns the launch by the variables of Open MPI or PMI (MPICH, Intel MPI); ranks fill node after node."""
    world_size = number(environment, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", default=1)
    local_size = max(1, number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", default=world_size))
    rank = number(environment, "OMPI_COMM_WORLD_RANK", "PMI_RANK", default=0)
    return Launch(
        kind="mpi",
        rank=rank,
        local_rank=number(environment, "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", default=rank % local_size),
        world_size=world_size,
        local_world_size=local_size,
        node_rank=rank // local_size,
        num_nodes=-(-world_size // local_size),
    )


def interface_towards(address: str) -> str:
    """Returns the network interface by which this machine reaches an address, such as "eth0"; empty where unknown.

    Gloo's default is the one of the machine's host name: on Debian, in containers and on laptops often the loopback.
    """
    try:
        (family, kind, protocol, _, target), *_ = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)  # UDP: sends nothing, only looks up the route
            own = probe.getsockname()[0]
    except OSError:
        return ""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, addresses in interfaces if any(its.address == own for its in addresses)), "")


def number(environment: Mapping[str, str], name: str, other: str = "", *, default: int) -> int:
    """Returns the variable `name`, or else `other`, as an integer of 0 or more; `default` if neither is set.

    Raises:
        InputError: when it is something else.
    """
    name = name if environment.get(name, "").strip() else other
    text = environment.get(name, "").strip()
    if text and not text.isdigit():
        raise InputError(f"the environment variable {name}={text} must be an integer of 0 or more; unset it")
    return int(text) if text else default


def is_main_process() -> bool:
    """Returns whether this process logs, prints and writes files for all processes of the run."""
    launch = detect_launch(os.environ)
    if launch.kind == "none" and "lightning.pytorch" in sys.modules:  # a Lightning strategy may start processes itself
        from lightning.pytorch.utilities import rank_zero_only

        return getattr(rank_zero_only, "rank", 0) == 0
    return launch.rank == 0
