"""Starts the processes of a run, one per device; each run of a multirun in processes of its own.

Lightning would start them inside `fit` by repeating the command, which starts a whole multirun again and does not work in a
notebook. Here torch's elastic agent (the engine of torchrun) starts and watches processes that receive the composed config.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from arclight import hardware
from arclight.config import locations
from arclight.config.compose import RunConfig, in_multirun
from arclight.console.interrupt import print_interrupt
from arclight.distributed.environment import Launch, slurm_master_address
from arclight.errors import InputError, ProcessError
from arclight.launch.process import INPUT_ERROR, NEW_RUN_DIR, PARENT, PENDING_SIGNAL, PROCESS, RUN_CONFIG
from arclight.runs import resume
from arclight.runs.run import Run
from arclight.runs.run_directory import read_results, read_status, write_status
from arclight.runs.temporary import temporary_directory

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

SUBMITTED = "SUBMITIT_EXECUTOR"  # set by submitit in the jobs it starts, each one run of a multirun
SHUTDOWN_S = 30  # for the other processes to end after one has died


def run(run_config: RunConfig) -> Run:
    """Trains and tests in as many processes as the config requests; with `preflight=full`, does a dry run instead.

    Raises:
        InputError: for an error in the config or the data.
        ProcessError: when a process of the run died.
    """
    if run_config.preflight == "full":
        from arclight.runs.dry_run import temporary  # imports lightning

        with temporary(run_config) as dry_run_config:
            return run_in_place(dry_run_config)
    try:
        return run_in_place(run_config)
    except (KeyboardInterrupt, SystemExit) as stopped:
        if not (run_config.folder / "config.yaml").exists():  # stopped before there was anything to keep
            resume.discard(run_config.folder)
            if isinstance(stopped, SystemExit):
                print_interrupt()
        raise


def run_in_place(run_config: RunConfig) -> Run:
    """As `run`, in the run directory of the config."""
    settings = run_config.settings
    try:
        hardware.check_settings(settings["hardware"])
        hardware_info = hardware.probe()
        launch = hardware_info.launch
        plan = hardware.plan(hardware_info, hardware.requested_settings(settings))
        node = Node.of(launch, plan, settings["hardware"])
        is_one_of_many = launch.world_size > 1 and not node.starts_processes
        if is_one_of_many and in_multirun() and SUBMITTED not in os.environ:
            raise InputError(f"a multirun starts processes itself: run `python train.py -m ...` without {launch.kind}")
        if node.rank == 0 and launch.rank == 0:
            run_config = resume.resolve_run_dir(run_config, launch)
        if in_multirun() and read_status(run_config.folder) == "finished":
            return Run(run_config.folder)
        hardware.accumulation_steps(settings["data"].get("batch_size"), node.num_processes * node.num_nodes)
    except InputError as error:
        resume.discard(run_config.folder)
        from arclight.preflight import with_all_others  # imports lightning

        raise with_all_others(error, run_config) from error
    if node.starts_processes or (in_multirun() and not is_one_of_many):
        try:
            return start(run_config, node, num_threads=plan["threads"].value)
        except InputError:  # the processes have checked everything
            resume.discard(run_config.folder)
            raise
    from arclight.runs.experiment import run as train  # imports torch and lightning

    return train(run_config)


@dataclass(frozen=True)
class Node:
    """The part of a machine in a run: how many processes it starts, and where it meets the other machines."""

    num_processes: int = 1
    num_nodes: int = 1
    rank: int = 0
    master_address: str = ""  # HOST:PORT of the first machine, where there are several
    max_restarts: int = 0
    starts_processes: bool = False
    run_id: str = ""  # of the launch that started this process

    @classmethod
    def of(cls, launch: Launch, plan: Mapping[str, hardware.Decision], settings: Mapping[str, Any]) -> Node:
        """Returns the node of a hardware plan, on a machine where `launch` has started this process.

        Raises:
            InputError: when several machines are requested and no master address is known.
        """
        num_processes = hardware.count_devices(plan["devices"].value)
        num_nodes = int(plan["num_nodes"].value)
        all_started = launch.world_size == num_processes * num_nodes and launch.kind != "none"
        if all_started or num_processes * num_nodes == 1:
            return cls(run_id=launch.run_id)
        address, rank = cls._find_master(launch, num_nodes) if num_nodes > 1 else ("", 0)
        max_restarts = int(settings.get("max_restarts", 0))
        return cls(num_processes, num_nodes, rank, address, max_restarts, starts_processes=True, run_id=launch.run_id)

    @staticmethod
    def _find_master(launch: Launch, num_nodes: int) -> tuple[str, int]:
        """Returns the master address and the rank of this machine."""
        if launch.kind == "slurm" and "MASTER_ADDR" not in os.environ:
            return ":".join(slurm_master_address(os.environ)), launch.node_rank
        given = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")}
        if launch.kind == "slurm":
            given["NODE_RANK"] = str(launch.node_rank)
        if missing := [name for name, value in given.items() if not value]:
            raise InputError(
                f"trainer.num_nodes={num_nodes}: on every machine, set {', '.join(missing)} (the first machine's address, a "
                "free port there, and 0, 1, ... for each machine) or start with torchrun or srun",
                key="trainer.num_nodes",
            )
        return f"{given['MASTER_ADDR']}:{given['MASTER_PORT']}", int(str(given["NODE_RANK"]))


class SignalForwarder:
    """Forwards signals to the processes of the run, which stop together; a second Ctrl-C kills them."""

    def __init__(self) -> None:
        self.number = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        kill = bool(self.number) and number == signal.SIGINT
        self.number = self.number or number
        os.environ[PENDING_SIGNAL] = str(self.number)  # for processes that are just being started
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if PROCESS in process.cmdline():
                    process.send_signal(signal.SIGKILL if kill else number)


def start(run_config: RunConfig, node: Node, *, num_threads: int) -> Run:
    """Trains in processes of their own and waits for their end; raises as `run` does."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from arclight.distributed.signals import Interrupted, handle_signals

    is_single = node.num_nodes == 1
    config = LaunchConfig(
        min_nodes=node.num_nodes,
        max_nodes=node.num_nodes,
        nproc_per_node=node.num_processes,
        run_id=node.run_id or (f"arclight-{os.getpid()}" if is_single else "none"),
        rdzv_backend="c10d" if is_single else "static",
        rdzv_endpoint="localhost:0" if is_single else node.master_address,
        rdzv_configs={} if is_single else {"rank": node.rank},
        local_addr="localhost" if is_single else None,
        max_restarts=node.max_restarts,
        shutdown_timeout=SHUTDOWN_S,
        signals_to_handle="SIGHUP,SIGQUIT",  # the agent would kill the processes SHUTDOWN_S after any other one, too
    )
    forwarder = SignalForwarder()
    with temporary_directory("processes") as top:
        config.logs_specs = DefaultLogsSpecs(log_dir=str(top))  # where processes write why they failed
        try:
            with environment_for(run_config, num_threads=num_threads, files=top), handle_signals(forwarder.handle):
                elastic_launch(config, sys.executable)("-u", "-m", PROCESS)
        except ChildFailedError as error:
            write_status_if_running(run_dir_of(run_config, top), "interrupted" if forwarder.number else "failed")
            if forwarder.number:
                raise Interrupted(forwarder.number) from None
            raise_first_failure(error, node)
        except SignalException as stopped:
            write_status_if_running(run_dir_of(run_config, top), "interrupted")
            raise Interrupted(stopped.sigval) from stopped
        folder = run_dir_of(run_config, top)
    results = read_results(folder)
    if number := forwarder.number or signal_of(results):
        write_status_if_running(folder, "interrupted")
        raise Interrupted(number)
    return Run(folder, results=results)


def run_dir_of(run_config: RunConfig, top: Path) -> Path:
    """Returns the run directory: another one than that of the config where the processes have started a new run."""
    try:
        return Path((top / NEW_RUN_DIR).read_text(encoding="utf-8"))
    except OSError:
        return run_config.folder


def signal_of(results: Mapping[str, Any]) -> int:
    """Returns the number of the signal that ended a run, by its results.json; 0 where none did."""
    name = str(results.get("signal")) if results.get("status") == "interrupted" else ""
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else 0


@contextmanager
def environment_for(run_config: RunConfig, *, num_threads: int, files: Path) -> Iterator[None]:
    """Context manager that passes the config and this process's import path to the processes started inside.

    `files` is a directory by which they report to this one.
    """
    given = {
        RUN_CONFIG: run_config.to_json(),
        PENDING_SIGNAL: "",
        PARENT: str(os.getpid()),
        resume.NEW_RUN_DIR_FILE: str(files.absolute() / NEW_RUN_DIR),
        locations.CONF_VARIABLE: str(locations.CONF),
        "PYTHONPATH": os.pathsep.join([sys.path[0] or str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(num_threads)),
    }
    before = {name: os.environ.get(name) for name in given}
    elastic = logging.getLogger("torch.distributed.elastic")
    level = elastic.level
    os.environ.update(given)
    elastic.setLevel(logging.CRITICAL)  # `raise_first_failure` reports a dead process in one message
    try:
        yield
    finally:
        elastic.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def raise_first_failure(error: ChildFailedError, node: Node) -> NoReturn:
    """Raises the error of the process that failed first, not those that it caused in others."""
    if node.max_restarts:
        logging.getLogger(__name__).warning("the processes were started %d times", node.max_restarts + 1)
    failures = error.failures
    killed = [rank for rank, failure in failures.items() if failure.exitcode < 0 and failure.signal_name() != "SIGTERM"]
    refused = [rank for rank, failure in failures.items() if failure.exitcode == INPUT_ERROR]
    first = next(iter([*killed, *refused]), error.get_first_failure()[0])
    failure = failures[first]
    message = failure.error_file_data["message"] if failure.error_file != "<N/A>" else ""
    text = message["message"] if isinstance(message, dict) else message
    if failure.exitcode == INPUT_ERROR and text:
        raise InputError(text) from None
    how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with exit status {failure.exitcode}"
    raise ProcessError(
        f"process {first} of {node.num_processes * node.num_nodes} (pid {failure.pid}) {how}; the others were stopped"
        + (f": {text}" if text else "")
    ) from None


def write_status_if_running(folder: Path, status: str) -> None:
    """Writes how the run ended to results.json where its own process could not."""
    if folder.is_dir() and read_status(folder) == "running":
        write_status(folder, status)
