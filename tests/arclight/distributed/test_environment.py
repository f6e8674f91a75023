"""The launch, by the variables that each launcher sets."""

from __future__ import annotations

import pytest

from arclight.distributed.environment import Launch, detect_launch, interface_towards
from arclight.errors import InputError

TORCHRUN = {
    **{"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "night"},
}
SLURM = {
    **{"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "77", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    **{"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_RESTART_COUNT": "2"},
}
OPEN_MPI = {
    **{"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"},
    **{"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
}


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch()),
        # what Lightning's own launcher leaves to its processes is no launcher: they were started by rank 0
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, Launch()),
        (TORCHRUN, Launch("torchrun", 3, 1, 4, 2, 1, 2, restart_count=1, run_id="night")),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"},
            Launch("torchrun", 1, 1, 2, 2),
        ),
        (SLURM, Launch("slurm", 9, 1, 16, 8, 1, 2, restart_count=2, run_id="77")),
        ({**SLURM, **TORCHRUN}, Launch("torchrun", 3, 1, 4, 2, 1, 2, restart_count=1, run_id="night")),
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, Launch()),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, Launch()),
        (
            {**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"},
            Launch("slurm", 1, 0, 2, 1, 1, 2, restart_count=2, run_id="77"),
        ),
        (
            {**without(SLURM, "SLURM_NTASKS_PER_NODE", "SLURM_RESTART_COUNT"), "SLURM_TASKS_PER_NODE": "12,4"},
            Launch("slurm", 9, 1, 16, 4, 1, 2, run_id="77"),
        ),
        (
            without(SLURM, "SLURM_NTASKS_PER_NODE", "SLURM_RESTART_COUNT", "SLURM_JOB_ID"),
            Launch("slurm", 9, 1, 16, 8, 1, 2),
        ),
        (OPEN_MPI, Launch("mpi", 5, 1, 8, 4, 1, 2)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Launch("mpi", 1, 1, 2, 2)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, Launch("mpi", 3, 1, 4, 2, 1, 2)),
    ],
)
def test_the_launch(environment: dict[str, str], launch: Launch) -> None:
    assert detect_launch(environment) == launch


def test_one_slurm_task_per_node_may_start_processes() -> None:
    assert not Launch("slurm", world_size=2, local_world_size=1, num_nodes=2).fixes_processes
    assert not Launch().fixes_processes
    assert Launch("slurm", world_size=2, local_world_size=2).fixes_processes
    assert Launch("torchrun").fixes_processes


def test_a_variable_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(InputError, match="the environment variable WORLD_SIZE=two must be an integer of 0 or more"):
        detect_launch({**TORCHRUN, "WORLD_SIZE": "two"})


def test_the_interface_towards_an_address() -> None:
    assert interface_towards("127.0.0.1").startswith("lo")
    assert interface_towards("") == interface_towards("127.0.0.1.2") == ""
