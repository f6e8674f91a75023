"""Prints the run summary before training and the results after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from arclight.checkpoint.contents import is_checkpoint, last_checkpoint
from arclight.checkpoint.position import Position
from arclight.config.compose import RunConfig
from arclight.config.groups import module_settings
from arclight.console.terminal import columns, format_metric, print_lines, print_pairs, print_tables, relative_path, score_table
from arclight.interfaces import is_of_one_class
from arclight.loggers.fault_tolerant import locations
from arclight.metrics.tables import Table
from arclight.modules.supervised import Scores
from arclight.report.page import STEP_FRACTIONS, format_duration, format_value
from arclight.runs.build import RunComponents, count_parameters

MOST_CLASSES = 24  # rows of a table on the terminal; of more classes, the weakest
# decisions that a terminal does not show while they have their usual value; train.log and `doctor` show all
USUAL = {"num_nodes": 1, "matmul_precision": "highest", "cudnn_benchmark": False, "compile": False}

log = logging.getLogger(__name__)


def print_run_summary(console: Console, components: RunComponents, run_config: RunConfig) -> None:
    """Prints data, model, steps, loggers and run directory, and each hardware decision with its reason."""
    if console.quiet:
        return
    summary, decisions = summarize(components, run_config), components.decisions.items()
    for name, decision in decisions:
        log.info("%s: %s (%s)", name, decision.value, decision.reason)
    if not console.is_terminal:
        print_pairs(console, [*summary, *((name, f"{made.value} ({made.reason})") for name, made in decisions)])
        return
    unusual = [(name, made) for name, made in decisions if made.is_user_set or USUAL.get(name, ...) != made.value]
    rows = [(name, str(made.value), made.reason) for name, made in unusual]
    body = Group(columns(summary, ("bold", "")), Text(), columns(rows, ("", "", "dim")))
    console.print(Panel(body, title=Text(f"{run_config.model} on {run_config.data}"), title_align="left"))


def summarize(components: RunComponents, run_config: RunConfig) -> list[tuple[str, str]]:
    """Returns the lines of the run summary: name and text."""
    trainer, module, data = components.trainer, cast(Any, components.module), cast(Any, components.data)
    processes, steps = trainer.world_size, trainer.accumulate_grad_batches
    lines = [("model", f"{run_config.model}: {count_parameters(module):,} parameters")]
    target = str(module_settings(run_config.settings)["_target_"]).rpartition(".")[2]
    monitor, best = components.monitor, "no monitored metric, the last checkpoint is tested"
    if monitor is not None:
        best = f"best by {'highest' if monitor.mode == 'max' else 'lowest'} {monitor.metric}"
    lines.append(("module", f"{target}, {best}"))
    if hasattr(data, "steps_per_epoch"):
        sizes = ", ".join(f"{size:,} {split}" for split, size in data.sizes.items())
        description = "" if data.data_info is None else data.data_info.describe()
        lines.insert(0, ("data", f"{run_config.data}: {'; '.join(filter(None, (sizes, description)))}"))
        factors = [f"{processes} processes"] * (processes > 1) + [f"{steps} accumulation steps"] * (steps > 1)
        micro_batch = str(data.batch_size // (processes * steps))
        lines.append(("batch", f"{data.batch_size} = {' x '.join([*factors, micro_batch])}" if factors else micro_batch))
        if hasattr(module, "learning_rate"):
            lines.append(("lr", module.learning_rate(data.batch_size)))
        lines.append(("steps", describe_steps(trainer, data.steps_per_epoch)))
    else:
        lines.insert(0, ("data", run_config.data if data is None else f"{run_config.data}: {type(data).__name__}"))
    if run_config.settings.get("test") is False:
        lines.append(("test", f"skipped (test=false); later: python -m arclight evaluate {relative_path(run_config.folder)}"))
    if components.ckpt_path is not None:
        lines.append(("resume", f"{Position.of(components.ckpt_path)}, from {relative_path(components.ckpt_path)}"))
    return [*lines, *locations(trainer.loggers), ("run dir", relative_path(run_config.folder))]


def describe_steps(trainer: Any, per_epoch: int) -> str:
    """Returns the optimizer steps per epoch and in total, in words."""
    limit, accumulation_steps = trainer.limit_train_batches, trainer.accumulate_grad_batches
    whole_epoch = per_epoch * accumulation_steps  # the limit is a fraction of it, or a number of micro-batches
    batches = min(limit, whole_epoch) if isinstance(limit, int) else int(limit * whole_epoch)
    per_epoch = math.ceil(batches / accumulation_steps)
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return f"{per_epoch:,} per epoch" + (f", {trainer.max_steps:,} in total" if trainer.max_steps > 0 else "")
    total = per_epoch * trainer.max_epochs
    limited = f", at most {trainer.max_steps:,}" if 0 < trainer.max_steps < total else ""
    return f"{per_epoch:,} per epoch x {trainer.max_epochs} = {total:,}{limited}"


def print_results(console: Console, results: Mapping[str, Any], scores: Scores | None, folder: Path) -> None:
    """Prints the score tables, the time and speed of the run, advice, and what to do next."""
    if console.quiet:
        return
    for table in () if scores is None else scores.tables:
        weakest = sorted(table.rows, key=lambda row: row.f1)[:MOST_CLASSES]
        num_left_out = len(table.rows) - len(weakest)
        shown_table = Table(table.title, tuple(weakest), table.averages) if num_left_out else table
        print_tables(console, [shown_table.to_rich()])
        if num_left_out:
            print_lines(console, [f"the {MOST_CLASSES} weakest classes; see the report for the other {num_left_out}"])
        print_lines(console, [""])
    run = relative_path(folder)
    print_tables(console, [score_table("", ("val", "test"), [metric_rows(results)])])
    print_lines(console, [""])
    print_pairs(console, times(results))
    evaluate = f"Evaluate again, or on other data: python -m arclight evaluate {run}"
    print_lines(console, ["", f"Report: {run}/report.html", evaluate, f"Compare: python -m arclight compare {run} RUN"])


def print_interrupted(console: Console, folder: Path) -> None:
    """Prints what a run that a signal has stopped saved, and the command that continues it."""
    run, last = relative_path(folder), last_checkpoint(folder)
    if not is_checkpoint(last):
        print_lines(console, [f"Stopped before the first checkpoint: {run} has nothing to continue from"])
        return
    print_lines(console, [f"Saved {Position.of(last)}: {relative_path(last)}", f"To continue: python train.py resume={run}"])


def metric_rows(results: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Returns name and cells of the metrics of the best epoch and of the test."""
    keys = [key for key in results if key.startswith(("val/", "test/")) and not is_of_one_class(key)]
    rows = []
    for metric in dict.fromkeys(key.partition("/")[2] for key in keys):
        values = [results.get(f"{split}/{metric}") for split in ("val", "test")]
        rows.append((metric, ["" if value is None else format_metric(value) for value in values]))
    return rows


def times(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines on the time of the run, the speed, how a training step splits up, and advice."""
    lines = []
    if "time/total_s" in results:
        parts = [f"{format_duration(results['time/total_s'])} in total"]
        names = {"time/first_step_s": "first step after", "time/fit_s": "training and validation"}
        parts += [f"{name} {format_duration(results[key])}" for key, name in names.items() if key in results]
        lines.append(("time", ", ".join(parts)))
    if "train/step_ms" in results:
        units = [key[len("train/") : -len("_per_s")] for key in results if key.startswith("train/") and key.endswith("_per_s")]
        unit = next((unit for unit in units if unit != "samples"), "samples")
        per_second = format_value(results[f"train/{unit}_per_s"], unit)
        lines.append(("speed", f"{per_second}/s, {format_value(results['train/step_ms'], 'ms')} per step"))
        if fractions := [f"{results[key]:.0%} {name}" for key, name in STEP_FRACTIONS.items() if key in results]:
            lines.append(("step", ", ".join(fractions)))
    if "advice" in results:
        lines.append(("advice", str(results["advice"])))
    return lines
