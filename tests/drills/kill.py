"""Kills real runs of `python train.py` at random moments and compares what becomes of them with runs that nothing has stopped.

    python tests/drills/kill.py --kills 20 --seconds 900
    python tests/drills/kill.py --processes 2 --kills 6 --seconds 600
    python tests/drills/kill.py --signal SIGTERM --kills 10

Each run is killed several times at random moments, goes on with resume=auto each time, and must end with weights, optimizer,
scores and curve equal bit for bit. Prints one line a kill and exits with 1 when any differs. Runs lie in a folder of their own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).parents[2]
COMMON = [
    *("precision=fp32", "trainer.accelerator=cpu", "trainer.log_every_n_steps=3", "checkpoint.every_steps=2"),
    *("callbacks=[early_stopping,weight_averaging]", "tracker=csv"),
]
TASKS = {
    "images": [
        *("experiment=demo", "data.num_train=320", "data.num_val=64", "data.num_test=64", "data.batch_size=32"),
        *("data.max_batch_per_device=8", "schedule=one_cycle", "trainer.max_epochs=3"),
    ],
    "text": [
        *("experiment=demo_tagger", "data.num_train=160", "data.num_val=32", "data.num_test=32", "data.batch_size=16"),
        *("data.max_batch_per_device=4", "model.dropout=0.2", "trainer.max_epochs=3"),
    ],
}


@dataclass(frozen=True)
class Drill:
    """One run in its folder, by the command that a user would type."""

    folder: Path
    overrides: list[str]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        log = (self.folder / "output.txt").open("ab")
        command = [sys.executable, str(ROOT / "train.py"), *self.overrides, *more]
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True)

    def finish(self, *more: str) -> int:
        return self.start(*more).wait()

    @property
    def runs(self) -> list[Path]:
        return sorted(file.parent for file in self.folder.glob("outputs/*/*/config.yaml"))

    @property
    def has_finished(self) -> bool:
        files = [run / "results.json" for run in self.runs]
        return any(json.loads(file.read_text())["status"] == "finished" for file in files if file.exists())

    def outcome(self) -> dict[str, Any]:
        """Everything that must not depend on a kill."""
        (run,) = self.runs
        results = json.loads((run / "results.json").read_text())
        scores = {
            key: value for key, value in results.items() if key.startswith(("val/", "test/")) or key in ("epochs", "steps")
        }
        with (run / "metrics.csv").open() as file:
            rows = [
                {key: value for key, value in row.items() if value and not key.endswith("_s")} for row in csv.DictReader(file)
            ]
        return {"status": results["status"], "scores": scores, "curve": rows}

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        (run,) = self.runs
        contents = torch.load(run / "checkpoints" / name, weights_only=True, map_location="cpu")
        states = {f"0.{key}": value for key, value in contents["state_dict"].items()}
        for number, state in contents["optimizer_states"][0]["state"].items():
            states |= {f"1.{number}.{key}": value for key, value in state.items()}
        return states


def differences(whole: Drill, again: Drill) -> list[str]:
    """What a run that was killed ended with that the whole one did not."""
    expected, found = whole.outcome(), again.outcome()
    different = [key for key in expected if expected[key] != found[key]]
    for name in ("best.ckpt", "last.ckpt"):
        one, other = whole.weights(name), again.weights(name)
        if one.keys() != other.keys() or any(not torch.equal(one[key], other[key]) for key in one):
            different.append(name)
    return different


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Sends the signal; a SIGKILL goes to all processes of the run at once, as when the machine fails."""
    with_children = [process.pid]
    if number is signal.SIGKILL:
        with_children += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    for pid in with_children:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return process.wait()


def moment(run: Drill) -> str:
    """Where the run was when it was killed, as its files tell."""
    if not run.runs:
        return "start-up"
    folder = run.runs[0]
    if list(folder.glob("checkpoints/*.part")):
        return "in a checkpoint write"
    last = folder / "checkpoints" / "last.ckpt"
    if not last.exists():
        return "before the first save"
    contents = torch.load(last, weights_only=True, mmap=True)
    return f"after the save of step {contents['global_step']} in epoch {contents['epoch']}"


def drill_once(whole: Drill, run: Drill, number: signal.Signals, moments: list[float]) -> Iterator[str]:
    """Kills a run at each of the moments, in seconds after it was started again; lines that tell what happened."""
    for after_s in moments:
        process = run.start("resume=auto")
        try:
            status = process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            status = end(process, number)
            yield f"{number.name} after {after_s:5.1f} s, {moment(run)}; exit status {status}"
            if run.has_finished:  # the kill came after its last word
                status = 0
                break
        else:
            yield f"came to its end before it was killed; exit status {status}"
            break
    else:
        status = run.finish("resume=auto")
    different = [f"exit status {status} of the run that went on"] if status else differences(whole, run)
    yield "equal" if not different else f"DIFFERENT: {', '.join(different)}"


def main() -> int:
    """The table of the drill; 1 when any run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="over both tasks")
    parser.add_argument("--seconds", type=float, default=900, help="no run begins later than this")
    parser.add_argument("--each", type=int, default=5, help="kills of one run")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=None, help="for the runs; one in the temporary folder that is removed")
    options = parser.parse_args()
    number, random_moments, began = signal.Signals[options.signal], random.Random(options.seed), time.monotonic()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill_drill_"))
    placing = ["strategy=ddp_cpu", f"trainer.devices={options.processes}"] if options.processes > 1 else ["trainer.devices=1"]
    num_kills = num_runs = num_different = 0
    wholes: dict[str, tuple[Drill, float]] = {}
    while num_kills < options.kills and time.monotonic() - began < options.seconds:
        task = list(TASKS)[num_runs % len(TASKS)]
        if task not in wholes:
            whole = Drill(folder / f"{task}-whole", [*TASKS[task], *COMMON, *placing])
            started = time.monotonic()
            if whole.finish():
                print(f"the run that nothing stops failed: {whole.folder / 'output.txt'}")
                return 1
            wholes[task] = whole, time.monotonic() - started
        whole, seconds = wholes[task]
        num_runs += 1
        run = Drill(folder / f"{task}-{num_runs}", whole.overrides)
        moments = [random_moments.uniform(0.2, 0.9) * seconds for _ in range(min(options.each, options.kills - num_kills))]
        for line in drill_once(whole, run, number, moments):
            num_kills += line.startswith("SIG")
            num_different += line.startswith("DIFFERENT")
            print(f"run {num_runs} {task:6} {line}", flush=True)
    print(f"{num_kills} kills of {num_runs} runs, {num_different} different; {options.processes} processes; ", end="")
    print(f"{time.monotonic() - began:.0f} s")
    if options.folder is None and not num_different:
        shutil.rmtree(folder)
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
