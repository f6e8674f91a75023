"""Real runs of `python train.py`, each in its own directory, and everything that must not depend on interruptions."""

from __future__ import annotations

import csv
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from arclight.checkpoint.sharded import load_sharded

ROOT = Path(__file__).parents[2]
STEPS_PER_EPOCH = 10  # of both examples
COMMON = [
    *("precision=fp32", "trainer.accelerator=cpu", "trainer.log_every_n_steps=5", "trainer.max_epochs=4"),
    *("checkpoint.every_steps=2", "callbacks=[early_stopping,weight_averaging]"),
]
TASKS = {
    "images": [
        *("experiment=demo", "data.num_train=320", "data.num_val=512", "data.num_test=64", "data.batch_size=32"),
        *("data.max_batch_per_device=8", "scheduler=one_cycle"),
    ],
    "text": [
        *("experiment=demo_tagger", "data.num_train=160", "data.num_val=128", "data.num_test=32", "data.batch_size=16"),
        *("data.max_batch_per_device=4", "model.dropout=0.2"),
    ],
}


def command_for(task: str, processes: int, logger: str = "csv") -> list[str]:
    """Returns the overrides of a drill, with accumulation, early stopping and weight averaging."""
    placing = ["strategy=ddp_cpu", f"trainer.devices={processes}"] if processes > 1 else ["trainer.devices=1"]
    return [*TASKS[task], *COMMON, *placing, f"logger={logger}"]


class Forked:
    """A run in a fork of this process, which has imported everything; has the parts of `subprocess.Popen` that drills use."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str], log: int) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                os.chdir(folder)
                os.environ.update(environment)
                for stream in (1, 2):
                    os.dup2(log, stream)
                sys.argv = [str(ROOT / "train.py"), *arguments]
                runpy.run_path(sys.argv[0], run_name="__main__")
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.001)
        assert self._status is not None
        return self._status


preloaded = False  # runs are forks of this process, which saves the seconds of the imports
Process = subprocess.Popen[bytes] | Forked


def preload() -> None:
    """Imports what a run imports; later runs are forks of this process."""
    global preloaded
    for name in (
        "arclight.runs.experiment",
        "arclight.report.report",
        "lightning.pytorch",
        "matplotlib.backends.backend_svg",
        "transformers",
    ):
        importlib.import_module(name)
    preloaded = True


@dataclass(frozen=True)
class Drill:
    """One run in its directory, started by the command that a user would type."""

    folder: Path
    overrides: list[str]

    def start(self, *more: str) -> Process:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        command = [sys.executable, str(ROOT / "train.py"), *self.overrides, *more]
        # outside the directory, whose disk may be full
        with self.log_file.open("ab") as log:
            if preloaded:
                return Forked(self.folder, [*self.overrides, *more], environment, log.fileno())
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True)

    @property
    def log_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.txt")

    def finish(self, *more: str) -> int:
        return self.start(*more).wait()

    @property
    def runs(self) -> list[Path]:
        return sorted(file.parent for file in self.folder.glob("outputs/*/*/config.yaml"))

    @property
    def has_finished(self) -> bool:
        return any(results(run).get("status") == "finished" for run in self.runs)

    def outcome(self) -> dict[str, Any]:
        """Returns everything that must not depend on a stop."""
        (run,) = self.runs
        found = results(run)
        scores = {key: value for key, value in found.items() if key.startswith(("val/", "test/")) or key in ("epochs", "steps")}
        curve = [{key: value for key, value in row.items() if value and not key.endswith("_s")} for row in rows(run)]
        predictions = (run / "predictions.jsonl").read_text() if found["status"] == "finished" else ""
        return {"status": found["status"], "scores": scores, "curve": curve, "predictions": predictions}

    def states(self, name: str) -> dict[str, torch.Tensor]:
        """Returns the weights and optimizer states of a checkpoint; empty without it."""
        (run,) = self.runs
        path = run / "checkpoints" / name
        if not path.exists():
            return {}
        contents = load_sharded(path) if path.is_dir() else torch.load(path, weights_only=True, map_location="cpu")
        states = {f"0.{key}": value for key, value in contents["state_dict"].items()}
        for number, state in contents["optimizer_states"][0]["state"].items():
            states |= {f"1.{number}.{key}": value for key, value in state.items()}
        return states


def results(run: Path) -> dict[str, Any]:
    """Returns the content of results.json; empty if there is none."""
    try:
        found: dict[str, Any] = json.loads((run / "results.json").read_text())
    except OSError:
        return {}
    return found


def rows(run: Path) -> list[dict[str, str]]:
    """Returns the complete rows of metrics.csv; a kill may truncate the last one."""
    try:
        text = (run / "metrics.csv").read_text()
    except OSError:
        return []
    return list(csv.DictReader(line for line in text.splitlines(keepends=True) if line.endswith("\n")))


def differences(whole: Drill, again: Drill) -> list[str]:
    """Returns the names of everything in which the stopped run ended different from the whole one."""
    if len(again.runs) != 1:
        return [f"{len(again.runs)} run directories instead of one"]
    expected, found = whole.outcome(), again.outcome()
    different = [key for key in expected if expected[key] != found[key]]
    for name in ("best.ckpt", "last.ckpt"):
        one, other = whole.states(name), again.states(name)
        if one.keys() != other.keys() or any(not is_equal(one[key], other[key]) for key in one):
            different.append(name)
    return different


def is_equal(one: Any, other: Any) -> bool:
    """Returns whether two values are equal in every bit."""
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    pair = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*pair)


def family(process: Process) -> list[int]:
    """Returns the ids of the process and all its descendants."""
    with suppress(psutil.Error):
        return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    return [process.pid]


def end(process: Process, number: signal.Signals, pids: list[int]) -> int:
    """Sends a signal to the process, as a scheduler does, or SIGKILL to the whole run; returns the exit status."""
    for pid in pids if number is signal.SIGKILL else [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    status = process.wait()
    if number is signal.SIGKILL:
        for pid in pids:  # processes started just before
            with suppress(psutil.Error):
                for child in psutil.Process(pid).children(recursive=True):
                    child.kill()
    return status
