"""Runs `python train.py` in a process and a directory of its own, and returns its results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arclight.config.locations import CONF
from arclight.errors import InputError

TIMEOUT_S = 1800.0
# set by launchers; Lightning would take them for the rank of the measured process
RANKS = ("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SHOWN_CHARACTERS = 2000  # of the output of a process that failed


def train(overrides: Sequence[str], *, num_threads: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Trains as `train_in` does, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
        return train_in(Path(folder), overrides, num_threads=num_threads, timeout_s=timeout_s)


def train_in(folder: Path, overrides: Sequence[str], *, num_threads: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Trains in a new process, which may start more, in `folder`, and returns what the only run there wrote to results.json.

    Raises:
        InputError: with the message of the run, when the overrides are wrong.
        RuntimeError: with the end of its output, when the run failed in another way or timed out.
    """
    command = [sys.executable, str(CONF.parent / "train.py"), *overrides]
    with (folder / "output").open("w+") as output:
        status = wait_for(command, folder, environment_for(num_threads), output.fileno(), timeout_s)
        output.seek(0)
        text = output.read()
    if status == 2 and "error: " in text:
        raise InputError(text[text.index("error: ") + len("error: ") :].strip())
    if status != 0:
        ended = f"took more than {timeout_s:.0f} s" if status is None else f"exited with status {status}"
        raise RuntimeError(f"python train.py {' '.join(overrides)} {ended}:\n{text[-SHOWN_CHARACTERS:]}")
    (file,) = folder.glob("outputs/*/*/results.json")
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results


def environment_for(num_threads: int) -> dict[str, str]:
    """Returns the environment of a measured process: its number of threads, and no rank."""
    inherited = {key: value for key, value in os.environ.items() if key not in RANKS}
    # torch, MKL and OpenBLAS all read the first of them
    return {**inherited, "OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}


def wait_for(command: list[str], folder: Path, environment: dict[str, str], output: int, timeout_s: float) -> int | None:
    """Returns the exit status, None after `timeout_s`; kills every process that it started, whatever happens."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
