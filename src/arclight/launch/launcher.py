"""Starts the processes of a run: one per device, each run of a grid in processes of its own, none where this one is enough.

Lightning would start them from inside `fit` by repeating the command, a whole grid included, and needs a script to repeat,
which a notebook has not. Here torch's elastic agent (the engine of torchrun) watches over processes that are given a composed
config: when one dies it ends the others, and says which it was.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from arclight import hardware
from arclight.config.compose import RunConfig, in_multirun
from arclight.distributed import rendezvous
from arclight.distributed.environment import Launch
from arclight.errors import InputError, ProcessError
from arclight.launch.signal_forwarding import TO_BE_STOPPED, SignalForwarder
from arclight.runs import resume
from arclight.runs.run import Run
from arclight.runs.run_directory import read_results, read_status, write_status

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

COMPOSED = "ARCLIGHT_COMPOSED"  # the variable that hands the config to the processes of a run
STARTS_ITS_OWN = ("spawn", "fork", "notebook")  # strategies of Lightning that start processes without repeating the command
SUBMITTED = "SUBMITIT_EXECUTOR"  # the variable by which submitit tells a job that it started it, one run of a grid
MISTAKE = 2  # exit status of a process that a mistake of the user ended
SHUTDOWN_S = 30  # that the other processes have to end once one has died


def run(run_config: RunConfig) -> Run:
    """Trains and tests, in as many processes as the config asks for; with `preflight=full`, tries both on one batch.

    Raises:
        InputError: for a mistake in the config or the data.
        ProcessError: when a process of the run died.
    """
    if run_config.preflight == "full":
        from arclight.runs.dry_run import temporary  # lightning loads here

        with temporary(run_config) as rehearsed:
            return run_where_told(rehearsed)
    return run_where_told(run_config)


def run_where_told(run_config: RunConfig) -> Run:
    """As `run`, in the folder that the config names."""
    try:
        hardware.check_settings(run_config.settings["hardware"])
        hardware_info = hardware.probe()
        plan = hardware.plan(hardware_info, hardware.requested_settings(run_config.settings))
        here = Node.of(hardware_info.launch, plan, run_config.settings["hardware"])
        is_one_of_many = hardware_info.launch.world_size > 1 and not here.starts_processes
        if is_one_of_many and in_multirun() and SUBMITTED not in os.environ:
            raise InputError(
                f"a grid starts processes itself: `python train.py -m ...` without {hardware_info.launch.kind} before it"
            )
        if here.rank == 0 and hardware_info.launch.rank == 0:
            run_config = resume.resolve_run_dir(run_config, hardware_info.launch)
        if in_multirun() and (done := finished(run_config.folder)):
            return done
        check_batch(run_config.settings["data"], here)
    except InputError as error:
        resume.discard(run_config.folder)
        from arclight.preflight import with_all_others  # lightning loads here

        raise with_all_others(error, run_config) from error
    if here.starts_processes or (in_multirun() and not is_one_of_many):
        try:
            return start(run_config, here, num_threads=plan["threads"].value)
        except InputError:  # the processes have looked at everything
            resume.discard(run_config.folder)
            raise
    from arclight.runs.experiment import run as train  # torch and lightning load here

    return train(run_config)


def check_batch(data: Mapping[str, Any], node: Node) -> None:
    """Raises InputError for a batch that does not divide over the processes, before they are started."""
    if isinstance(size := data.get("batch_size"), int) and size > 0:
        hardware.accumulation_steps(size, node.num_processes * node.num_nodes, None)


def finished(folder: Path) -> Run | None:
    """The run of this folder if it has come to its end before."""
    if read_status(folder) != "finished":
        return None
    return Run(folder)


@dataclass(frozen=True)
class Node:
    """The share of one machine in a run: how many processes it starts, and how the machines of the run meet."""

    num_processes: int = 1
    num_nodes: int = 1
    rank: int = 0
    meeting: str = ""  # HOST:PORT of the first machine, where there are several
    max_restarts: int = 0
    starts_processes: bool = False
    run_id: str = ""  # the name of the launch that started this process, by which a run that was started again finds its folder

    @classmethod
    def of(cls, launch: Launch, plan: Mapping[str, hardware.Decision], settings: Mapping[str, Any]) -> Node:
        """The share that the plan asks for, on a machine where `launch` has started this process.

        Raises:
            InputError: when several machines are wanted and nothing says where they meet.
        """
        num_processes = hardware.count_devices(plan["devices"].value)
        num_nodes = int(plan["num_nodes"].value)
        each_has_its_own = launch.world_size == num_processes * num_nodes and launch.kind != "none"
        if each_has_its_own or num_processes * num_nodes == 1:
            return cls(run_id=launch.run_id)
        if any(word in str(plan["strategy"].value) for word in STARTS_ITS_OWN):
            return cls()
        meeting, rank = "", 0
        if num_nodes > 1:
            meeting, rank = cls._meeting(launch, num_nodes)
        max_restarts = int(settings.get("max_restarts", 0))
        return cls(num_processes, num_nodes, rank, meeting, max_restarts, starts_processes=True, run_id=launch.run_id)

    @staticmethod
    def _meeting(launch: Launch, num_nodes: int) -> tuple[str, int]:
        """Where the machines meet, and which of them this is."""
        if launch.kind == "slurm" and "MASTER_ADDR" not in os.environ:
            return ":".join(rendezvous.slurm_meeting(os.environ)), launch.node_rank
        given = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")}
        if launch.kind == "slurm":
            given["NODE_RANK"] = str(launch.node_rank)
        if absent := [name for name, value in given.items() if not value]:
            raise InputError(
                f"trainer.num_nodes={num_nodes}: on every machine, set {', '.join(absent)} (the first machine's address, a "
                "free port there, and 0, 1, ... for each machine) or start with torchrun or srun"
            )
        return f"{given['MASTER_ADDR']}:{given['MASTER_PORT']}", int(str(given["NODE_RANK"]))


def start(run_config: RunConfig, node: Node, *, num_threads: int) -> Run:
    """Makes the run in processes of its own and waits for their end; arguments and errors as of `run`."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from arclight.distributed.signals import Interrupted

    alone = node.num_nodes == 1
    config = LaunchConfig(
        min_nodes=node.num_nodes,
        max_nodes=node.num_nodes,
        nproc_per_node=node.num_processes,
        run_id=node.run_id or (f"arclight-{os.getpid()}" if alone else "none"),
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="localhost:0" if alone else node.meeting,
        rdzv_configs={} if alone else {"rank": node.rank},
        local_addr="localhost" if alone else None,
        max_restarts=node.max_restarts,
        shutdown_timeout=SHUTDOWN_S,
    )
    command = ["-u", "-m", "arclight.launch.launcher"]
    signals = SignalForwarder()
    try:
        with (
            handed_over(run_config, num_threads=num_threads),
            signals.taken(),
            tempfile.TemporaryDirectory(prefix="arclight-") as logs,
        ):
            config.logs_specs = DefaultLogsSpecs(log_dir=logs)  # where processes leave why they failed
            elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        mark_unless_told(run_config.folder, "interrupted" if signals.number else "failed")
        if signals.number:
            raise Interrupted(signals.number) from None
        tell(error, node)
    except SignalException as stopped:
        mark_unless_told(run_config.folder, "interrupted")
        raise Interrupted(stopped.sigval) from stopped
    results = read_results(run_config.folder)
    if number := signals.number or signal_of(results):
        mark_unless_told(run_config.folder, "interrupted")
        raise Interrupted(number)
    return Run(run_config.folder, results=results)


def signal_of(results: Mapping[str, Any]) -> int:
    """The number of the signal that has ended a run, by its results.json; 0 where none has."""
    name = str(results.get("signal")) if results.get("status") == "interrupted" else ""
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else 0


@contextmanager
def handed_over(run_config: RunConfig, *, num_threads: int) -> Iterator[None]:
    """Inside, processes that are started find the config in their environment, and what this process can import."""
    given = {
        COMPOSED: run_config.to_json(),
        "PYTHONPATH": os.pathsep.join([sys.path[0] or str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(num_threads)),
    }
    before = {name: os.environ.get(name) for name in given}
    elastic = logging.getLogger("torch.distributed.elastic")
    level = elastic.level
    os.environ.update(given)
    elastic.setLevel(logging.CRITICAL)  # what it has to say about a dead process is told as one message
    try:
        yield
    finally:
        elastic.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def tell(error: ChildFailedError, node: Node) -> NoReturn:
    """Raises what the first process to fail ended with, not what the others met because of it."""
    if node.max_restarts:
        logging.getLogger(__name__).warning("the processes were started %d times", node.max_restarts + 1)
    failures = error.failures
    killed = [rank for rank, failure in failures.items() if failure.exitcode < 0 and failure.signal_name() != "SIGTERM"]
    mistaken = [rank for rank, failure in failures.items() if failure.exitcode == MISTAKE]
    first = next(iter([*killed, *mistaken]), error.get_first_failure()[0])
    failure = failures[first]
    message = failure.error_file_data["message"] if failure.error_file != "<N/A>" else ""
    text = message["message"] if isinstance(message, dict) else message
    if failure.exitcode == MISTAKE and text:
        raise InputError(text) from None
    how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with exit status {failure.exitcode}"
    raise ProcessError(
        f"process {first} of {node.num_processes * node.num_nodes} (pid {failure.pid}) {how}; the others were stopped"
        + (f": {text}" if text else "")
    ) from None


def mark_unless_told(folder: Path, status: str) -> None:
    """Says in results.json how the run ended, if its own process could not."""
    if folder.is_dir() and read_status(folder) == "running":
        write_status(folder, status)


def work() -> None:
    """What each of the started processes does."""
    if TO_BE_STOPPED in os.environ:
        return
    # beside the attempts' own folders: what a mistake ended is not mended by being started again (hardware.max_restarts)
    mistake_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "mistake"
    if mistake_file.exists():
        leave_message(mistake_file.read_text(encoding="utf-8"))
        sys.exit(MISTAKE)
    from arclight.distributed.signals import Interrupted
    from arclight.runs.experiment import run as train

    try:
        train(RunConfig.from_json(os.environ[COMPOSED]))
    except Interrupted:
        pass  # all have ended together, as they were told; another status would make torch's agent start them again
    except InputError as error:
        mistake_file.write_text(str(error), encoding="utf-8")
        leave_message(str(error))
        sys.exit(MISTAKE)
    except Exception as error:
        leave_message(f"{type(error).__name__}: {error}")
        raise


def leave_message(text: str) -> None:
    """Leaves it where torch's agent looks for the reason when a process fails."""
    content = {"message": {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    work()
