"""Kills a run that records to every logger; afterwards each of them must hold every row of metrics.csv exactly once."""

from __future__ import annotations

import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arclight.config.atomic_file import read_json
from arclight.loggers.record import metrics_of, read_rows, step_of
from arclight.loggers.wandb import AXIS, ROW
from tests.drills.moments import Watch, wait_for
from tests.drills.runs import Drill, command_for, differences, end
from tests.project.engine.loggers.test_factory import history, records

Curves = dict[tuple[str, int], list[float]]  # the values of each metric at each step

AIMS = ("in a step", "in validation", "in a step", "in the epoch turn-over", "in a step", "in validation")
SPEED = "train/samples_per_s"  # of the step before a kill: W&B and MLflow keep it, the repeated step has another
SETTINGS = (
    *("trainer.log_every_n_steps=1", "checkpoint.every_steps=3"),
    "+callbacks.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor",
)


def killed_with_every_logger(place: Path, task: str, whole: Drill) -> tuple[bool, str]:
    """Returns whether every logger has each row of metrics.csv once, with the same value, and how many rows and kills."""
    run, kills = Drill(place / "run", [*command_for(task, 1, logger="[csv,tensorboard,wandb,mlflow]"), *SETTINGS]), 0
    unstopped = Drill(place / "unstopped", [*command_for(task, 1), *SETTINGS])
    unstopped.finish()
    for seed, aim in enumerate(AIMS):
        process, watch = run.start("resume=auto"), Watch(run)
        reached, pids = wait_for(aim, process, watch, random.Random(seed), 5.0, 120.0)
        if reached:
            end(process, signal.SIGKILL, pids)
            kills += 1
        process.wait()
        if run.has_finished:
            break
    status = 0 if run.has_finished else run.finish("resume=auto")
    (run_dir,) = run.runs
    expected = csv_curves(run_dir)
    wrong = compare(expected, tensorboard_curves(run_dir), is_exact=True, digits=np.float32)
    problems = {"TensorBoard": wrong, "W&B": compare(expected, wandb_curves(run_dir))}
    problems["MLflow"] = compare(expected, mlflow_curves(run.folder, run_dir))
    problems["metrics.csv"] = compare(csv_curves(unstopped.runs[0]), expected)
    different = [name for name in differences(whole, run) if name != "curve"]  # it has every step here
    num_values = sum(map(len, expected.values()))
    found = "; ".join(f"{name}: {', '.join(wrong[:5])}" for name, wrong in problems.items() if wrong)
    outcome = f"{kills} kills, exit status {status}, {num_values} values of {len({key for key, _ in expected})} metrics, "
    outcome += f"different: {found}" if found else "each once in metrics.csv, TensorBoard, W&B and MLflow"
    return status == 0 and not found and not different, outcome + (f"; NOT equal: {different}" if different else "")


def compare(expected: Curves, found: Curves, *, is_exact: bool = False, digits: type = float) -> list[str]:
    """Returns what is missing, repeated or has another value."""
    wrong, names = [], {key for key, _ in expected}
    for place in sorted({*expected, *(place for place in found if place[0] in names)}):
        values, theirs = ([digits(value) for value in curves.get(place, [])] for curves in (expected, found))
        is_same = np.array_equal(sorted(values), sorted(theirs), equal_nan=True)
        if not is_same and (is_exact or place[0] != SPEED or len(values) != len(theirs)):
            wrong.append(f"{place[0]} at step {place[1]}: {theirs} instead of {values}")
    return wrong


def collect(points: Iterator[tuple[str, int, float]]) -> Curves:
    curves: Curves = defaultdict(list)
    for key, step, value in points:
        curves[key, step].append(value)
    return curves


def csv_curves(run_dir: Path) -> Curves:
    rows = read_rows(run_dir / "metrics.csv")
    return collect((key, step_of(row), value) for row in rows for key, value in metrics_of(row).items())


def tensorboard_curves(run_dir: Path) -> Curves:
    found = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return collect((tag, event.step, event.value) for tag in found.Tags()["scalars"] for event in found.Scalars(tag))


def wandb_curves(run_dir: Path) -> Curves:
    rows = [row for folder in sorted(run_dir.glob("wandb/offline-run-*")) for row in history(records(folder))]
    points = ((key, row[AXIS], row[key]) for row in rows for key in row if key not in (AXIS, ROW) and not key.startswith("_"))
    return collect((key, int(step), float(value)) for key, step, value in points)


def mlflow_curves(folder: Path, run_dir: Path) -> Curves:
    client, run_id = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db"), read_json(run_dir / "trackers.json")["mlflow"]
    names = client.get_run(run_id).data.metrics
    metrics = (metric for name in names for metric in client.get_metric_history(run_id, name))
    return collect((metric.key, metric.step, metric.value) for metric in metrics)
