"""What a run says of itself on the terminal: at its start what is trained on what and how, at its end what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from arclight.config.compose import RunConfig
from arclight.console.terminal import grid, near, say, show, show_facts
from arclight.hardware import Decision
from arclight.images.info import ImageInfo
from arclight.loggers.links import links
from arclight.metrics.tables import Table
from arclight.modules.supervised import Scores
from arclight.report.page import duration, shown
from arclight.runs.build import RunComponents, count_parameters
from arclight.text.info import TokenInfo

MOST_CLASSES = 24  # rows of a table that the terminal shows; of more the weakest
# choices that are as everywhere: a terminal leaves them out, train.log and `doctor` have them
UNREMARKABLE = {"num_nodes": 1, "matmul_precision": "highest", "cudnn_benchmark": False, "compile": False}
PARTS_OF_A_STEP = {
    "train/forward_backward_share": "forward and backward",
    "train/optimizer_share": "optimizer",
    "train/logging_share": "callbacks and loggers",
    "train/data_wait_share": "waiting for data",
}

log = logging.getLogger(__name__)


def print_run_summary(console: Console, parts: RunComponents, run_config: RunConfig) -> None:
    """Data, model, steps, trackers and folder, and what was chosen for this machine and why."""
    if console.quiet:
        return
    hardware_info = facts_of(parts, run_config)
    for name, choice in parts.decisions.items():
        log.info("%s: %s (%s)", name, choice.value, choice.reason)
    if not console.is_terminal:
        show_facts(
            console,
            [*hardware_info, *((name, f"{choice.value} ({choice.reason})") for name, choice in parts.decisions.items())],
        )
        return
    title = Text(f"{run_config.model} on {run_config.data}")
    both = Group(grid(hardware_info, ("bold", "")), Text(), grid(told_of(parts.decisions), ("", "", "dim")))
    console.print(Panel(both, title=title, title_align="left"))


def told_of(decisions: Mapping[str, Decision]) -> list[tuple[str, str, str]]:
    """Name, value and reason of the choices that are not as everywhere."""
    return [
        (name, str(choice.value), choice.reason)
        for name, choice in decisions.items()
        if choice.is_user_set or UNREMARKABLE.get(name, ...) != choice.value
    ]


def facts_of(parts: RunComponents, run_config: RunConfig) -> list[tuple[str, str]]:
    """What is trained on what, in words."""
    trainer, module, data = parts.trainer, parts.module, parts.data
    sizes = ", ".join(f"{size:,} {split}" for split, size in data.sizes.items())
    processes, num_parts = trainer.world_size, trainer.accumulate_grad_batches
    shares = [f"{processes} processes"] * (processes > 1) + [f"{num_parts} parts"] * (num_parts > 1)
    share = str(data.batch_size // (processes * num_parts))
    batch = f"{data.batch_size} = {' x '.join([*shares, share])}" if shares else share
    task_name = str(run_config.settings["module"]["_target_"]).rpartition(".")[2]
    direction = "highest" if module.monitor.mode == "max" else "lowest"
    return [
        ("data", f"{run_config.data}: {sizes}{look_of(data.data_info)}"),
        ("model", f"{run_config.model}: {count_parameters(module):,} parameters"),
        ("module", f"{task_name}, best by {direction} {module.monitor.metric}"),
        ("batch", batch),
        ("lr", module.learning_rate(data.batch_size)),
        ("steps", steps_of(trainer, data.steps_per_epoch)),
        *((name, place) for name, place in links(trainer.loggers)),
        ("folder", near(run_config.folder)),
    ]


def look_of(data_info: Any) -> str:
    """Shape and labels of the data."""
    if isinstance(data_info, ImageInfo):
        return f"; {data_info.channels}x{data_info.height}x{data_info.width}, {len(data_info.classes)} classes"
    if isinstance(data_info, TokenInfo):
        return f"; {len(data_info.labels)} tags, up to {data_info.max_length} subwords"
    return ""


def steps_of(trainer: Any, per_epoch: int) -> str:
    """Optimizer steps of an epoch and of the whole fit."""
    limit, num_parts = trainer.limit_train_batches, trainer.accumulate_grad_batches
    whole_epoch = per_epoch * num_parts  # a share of it, or so many of its batches
    batches = min(limit, whole_epoch) if isinstance(limit, int) else int(limit * whole_epoch)
    per_epoch = math.ceil(batches / num_parts)
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return f"{per_epoch:,} per epoch, {trainer.max_steps:,} in all" if trainer.max_steps > 0 else f"{per_epoch:,} per epoch"
    whole = per_epoch * trainer.max_epochs
    limited = f", at most {trainer.max_steps:,}" if 0 < trainer.max_steps < whole else ""
    return f"{per_epoch:,} per epoch x {trainer.max_epochs} = {whole:,}{limited}"


def print_results(console: Console, results: Mapping[str, Any], scores: Scores, folder: Path) -> None:
    """The score tables, where the time went, what to change, and what can be done next."""
    if console.quiet:
        return
    for table in scores.tables:
        shortened, num_left_out = shorten(table)
        show(console, [shortened.to_rich()])
        if num_left_out:
            say(console, [f"the {MOST_CLASSES} weakest classes; the {num_left_out} others stand in the report"])
        say(console, [""])
    run = near(folder)
    show(console, [score_table(results)])
    say(console, [""])
    show_facts(console, [*times(results), *([("advice", str(results["advice"]))] if "advice" in results else [])])
    say(
        console,
        [
            "",
            f"report: {run}/report.html",
            f"score it again, or on other data: python -m arclight evaluate {run}",
            f"beside another run: python -m arclight compare {run} RUN",
        ],
    )


def shorten(table: Table) -> tuple[Table, int]:
    """The table with its weakest classes where it has more than a terminal shows, and how many are left out."""
    num_left_out = len(table.rows) - MOST_CLASSES
    if num_left_out <= 0:
        return table, 0
    weakest = sorted(table.rows, key=lambda one: one.f1)[:MOST_CLASSES]
    return Table(table.title, tuple(weakest), table.averages), num_left_out


def score_table(results: Mapping[str, Any]) -> Any:
    """Scores of the best epoch and of the test, side by side."""
    keys = [key for key in results if key.startswith(("val/", "test/")) and key.count("/") == 1]
    table = RichTable()
    table.add_column("")
    for split in ("val", "test"):
        table.add_column(split, justify="right")
    for metric in dict.fromkeys(key.partition("/")[2] for key in keys):
        values = [results.get(f"{split}/{metric}") for split in ("val", "test")]
        table.add_row(Text(metric), *("" if value is None else f"{value:.4f}" for value in values))
    return table


def times(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the time of the run and that of a step went."""
    told = []
    if "time/total_s" in results:
        parts = [f"{duration(results['time/total_s'])} in all"]
        names = {"time/first_step_s": "the first step after", "time/fit_s": "training and validation"}
        parts += [f"{name} {duration(results[key])}" for key, name in names.items() if key in results]
        told.append(("time", ", ".join(parts)))
    if "train/step_ms" in results:
        unit = "tokens" if "train/tokens_per_s" in results else "samples"
        speed = f"{shown(results[f'train/{unit}_per_s'], unit)}/s, {shown(results['train/step_ms'], 'ms')} a step"
        shares = [(results[key], name) for key, name in PARTS_OF_A_STEP.items() if key in results]
        told.append(("speed", speed))
        if shares:
            told.append(("step", ", ".join(f"{share:.0%} {name}" for share, name in shares)))
    return told
