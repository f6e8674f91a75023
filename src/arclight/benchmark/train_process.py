"""A run of `python train.py` as anyone would start it, in a folder of its own, and what it says of its speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arclight.config.locations import CONF
from arclight.errors import InputError

LONGEST_S = 1800.0
# What a process that was itself started by a launcher would hand down, and what Lightning would take for its own place in a run
PLACES = ("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TOLD_CHARACTERS = 2000


@dataclass(frozen=True)
class Trained:
    """`results` as in results.json; `communication` as in communication.json, empty where none was asked for."""

    results: dict[str, Any]
    communication: dict[str, Any]


def train(overrides: Sequence[str], *, num_threads: int, longest_s: float = LONGEST_S) -> Trained:
    """As `train_in`, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
        return train_in(Path(folder), overrides, num_threads=num_threads, longest_s=longest_s)


def train_in(folder: Path, overrides: Sequence[str], *, num_threads: int, longest_s: float = LONGEST_S) -> Trained:
    """Trains in a process (which may start more), waits, and reads what it leaves.

    Args:
        folder: that it is started in; the only run there, or the one that it goes on with.
        overrides: of `python train.py`.
        num_threads: of each process.
        longest_s: after which all its processes are ended.

    Raises:
        InputError: with the run's own message, when the overrides are wrong.
        RuntimeError: when the run failed in another way or took too long; with the end of what it said.
    """
    environment = environment_for(num_threads)
    command = [sys.executable, str(CONF.parent / "train.py"), *overrides]
    with (folder / "said").open("w+") as said:
        status = wait_for(command, str(folder), environment, said.fileno(), longest_s)
        said.seek(0)
        text = said.read()
    if status == 2 and "error: " in text:
        raise InputError(text[text.index("error: ") + len("error: ") :].strip())
    if status != 0:
        ended = f"took more than {longest_s:.0f} s" if status is None else f"ended with status {status}"
        raise RuntimeError(f"python train.py {' '.join(overrides)} {ended}:\n{text[-TOLD_CHARACTERS:]}")
    (results,) = folder.glob("outputs/*/*/results.json")
    communication = results.with_name("communication.json")
    return Trained(
        json.loads(results.read_text(encoding="utf-8")),
        json.loads(communication.read_text(encoding="utf-8")) if communication.is_file() else {},
    )


def environment_for(num_threads: int) -> dict[str, str]:
    """The environment of a process that is measured: so many threads, and no place in a run that measures."""
    kept = {key: value for key, value in os.environ.items() if key not in PLACES}
    # torch, MKL and OpenBLAS all ask the first of them
    return {**kept, "OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}


def wait_for(command: list[str], folder: str, environment: dict[str, str], said: int, longest_s: float) -> int | None:
    """The exit status, None after `longest_s`; however this ends, no process that it started is left."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
    )
    try:
        return process.wait(longest_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
