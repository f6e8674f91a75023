"""The composition root: config -> data, net, trainer -> fit, test -> results. Read this file and you know the program."""

from __future__ import annotations

import logging
import math
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from arclight import hardware, run_folder
from arclight.build import build, find_mistakes, find_target, parameters_of
from arclight.checkpoint import CheckpointContents, build_task, restore
from arclight.config import Composed
from arclight.data.datamodule import DataModule
from arclight.errors import InputError
from arclight.evaluation.report import write_report
from arclight.spec import ImageSpec, TokenSpec
from arclight.training.callbacks import EpochScores, build_callbacks, checkpoint_callbacks, progress_callback
from arclight.training.optimizers import lr_factor
from arclight.training.task import Scores, Task
from arclight.training.throughput import Throughput
from arclight.training.trackers import build_trackers, close_trackers, record_facts

KINDS = {ImageSpec: "images", TokenSpec: "tagged text"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a run leaves: `results` as in results.json, the LightningModule with its best weights, and the folder.

    `score` is the best value of the task's monitored metric, which sweeps steer by; nan when nothing was validated.
    """

    results: dict[str, Any]
    model: Task
    folder: Path
    score: float


@dataclass(frozen=True)
class Parts:
    """Everything that a fit needs, put together."""

    data: DataModule
    task: Task
    trainer: Trainer
    throughput: Throughput
    epochs: EpochScores
    choices: dict[str, hardware.Choice]


def run(composed: Composed) -> Run:
    """Trains, tests the best checkpoint, and leaves the run folder.

    Raises:
        InputError: for a mistake in the config or the data.
    """
    with run_folder.logged(composed.folder):
        try:
            return train_and_test(composed)
        except InputError:
            run_folder.discard_unless_trained(composed.folder)
            raise


def train_and_test(composed: Composed) -> Run:
    """As `run`; whatever happens, the folder and the trackers say how it ended."""
    console = Console(quiet=not hardware.is_main_process())
    results: dict[str, Any] = {"status": "failed", "data": composed.data, "model": composed.model}
    results["seed"] = composed.settings["seed"]
    loggers: list[Logger] = []
    facts = hardware.probe()
    run_folder.write_inputs(composed, facts)
    try:
        parts = put_together(composed, facts, loggers, console)
        show_start(console, parts, composed)
        fit(parts, results)
        scores = test(parts, results, composed.folder)
        results["status"] = "finished"
    except (KeyboardInterrupt, SystemExit):  # Lightning turns both Ctrl-C and SIGTERM into an exit
        results["status"] = "interrupted"
        raise
    finally:
        results["time/total_s"] = time.time() - composed.started
        run_folder.write_json(composed.folder / "results.json", results)
        close_trackers(loggers, failed=results["status"] != "finished")
        report(composed.folder)
    show_end(console, results, scores, composed.folder)
    return Run(results, parts.task, composed.folder, parts.epochs.best.get(parts.task.monitor.metric, math.nan))


def put_together(composed: Composed, facts: hardware.Facts, loggers: list[Logger], console: Console) -> Parts:
    """Data first, because the net is built for its facts; then net, trackers, callbacks, trainer."""
    settings = composed.settings
    has_images = getattr(find_target(settings["data"].get("_target_", ""), "data"), "spec_type", None) is ImageSpec
    choices = hardware.plan(facts, settings["trainer"] | settings["hardware"], has_fixed_shapes=has_images)
    # null stands for Lightning's own default
    chosen = {key: value for key, value in settings["trainer"].items() if value is not None}
    chosen |= hardware.for_trainer(choices)
    check_settings({**settings, "trainer": chosen})
    for problem in facts.problems if hardware.is_main_process() else ():
        log.warning(problem)
    seed_everything(settings["seed"], workers=True, verbose=False)
    hardware.put_into_effect(choices)
    world_size = hardware.count_devices(choices["devices"].value) * choices["num_nodes"].value

    data = build_data(settings, workers=choices["workers"].value)
    parts_per_step = hardware.accumulation(data.batch_size, world_size, data.max_batch_per_device)
    data.prepare_data()
    data.setup("fit")
    assert data.spec is not None
    task = build_task(settings, data.spec, channels_last=choices["channels_last"].value)
    if choices["compile"].value:
        task.net.compile()  # in place: names of weights stay as they are

    loggers += build_trackers(settings["tracker"], composed.folder, settings["name"])
    throughput, epochs = Throughput(composed.started), EpochScores(task.monitor)
    callbacks = [
        throughput,
        epochs,
        CheckpointContents(settings, composed.data, composed.model),
        *checkpoint_callbacks(composed.folder / "checkpoints", task.monitor),
        *build_callbacks(settings["callbacks"], task.monitor),
        *([] if console.quiet else [progress_callback(console, throughput)]),
    ]
    given = {
        "logger": loggers,
        "callbacks": callbacks,
        "default_root_dir": str(composed.folder),
        "enable_progress_bar": console.is_terminal and not console.quiet,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders shard themselves
    }
    if parts_per_step > 1:
        given["accumulate_grad_batches"] = parts_per_step
    trainer: Trainer = build(chosen, "trainer", given)
    record_facts(loggers, {**settings, "parameters": count_parameters(task)})
    return Parts(data, task, trainer, throughput, epochs, choices)


def build_data(settings: dict[str, Any], *, workers: int) -> DataModule:
    """The data set; one that decodes files does so in as many threads as the plan says, unless its own settings say."""
    given = {"seed": settings["seed"]}
    takes = "num_workers" in parameters_of(settings["data"]["_target_"], "data")
    if takes and settings["data"].get("num_workers") is None:
        given["num_workers"] = workers
    data: DataModule = build(settings["data"], "data", given)
    return data


def check_settings(settings: dict[str, Any]) -> None:
    """Looks at all that will be built, before any of it is.

    Raises:
        InputError: naming every mistake, not only the first.
    """
    given = {
        "data": ["seed"],
        "model": ["spec"],
        "task": ["spec", "net", "make_optimizer", "schedule"],
        "optimizer": [],
        "schedule": [],
        "trainer": [],
    }
    check_kinds(settings)
    mistakes: list[str] = []
    seed = settings["seed"]
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        mistakes.append(f"seed={seed} must be a whole number from 0 to {2**32 - 1}")
    for group, objects in given.items():
        mistakes += find_mistakes(settings[group], group, dict.fromkeys(objects))
    if not mistakes:  # the types are right then
        lr_factor(settings["task"].get("lr_rule", "none"), 1, settings["task"].get("lr_batch_size"))
    if mistakes:
        raise InputError("\n".join(mistakes))


def check_kinds(settings: dict[str, Any]) -> None:
    """Raises InputError when the model learns from another kind of data than the data set holds."""
    wanted, offered = (
        getattr(find_target(settings[group].get("_target_", ""), group), "spec_type", None) for group in ("task", "data")
    )
    if wanted and offered and wanted is not offered:
        data, model = ("data=cifar10", "model=bert_tagger") if wanted is ImageSpec else ("data=conll2003", "model=cnn")
        raise InputError(
            f"model and data are of different tasks: the model learns from {KINDS[wanted]}, the data set holds "
            f"{KINDS[offered]}; take {model} for this data, or {data} for this model"
        )


def fit(parts: Parts, results: dict[str, Any]) -> None:
    """Trains and adds to the results what is known then, also when it is cut short."""
    began = time.time()
    try:
        parts.trainer.fit(parts.task, parts.data)
    finally:
        results |= {
            **parts.epochs.best,
            "time/fit_s": time.time() - began,
            "memory/peak_mb": peak_memory_mb(),
            "epochs": parts.trainer.current_epoch,
            "steps": parts.trainer.global_step,
            "parameters": count_parameters(parts.task),
        }
    results |= parts.throughput.numbers(parts.trainer)  # not above: the processes add up, and one that failed would not answer


def test(parts: Parts, results: dict[str, Any], folder: Path) -> Scores:
    """Scores the best checkpoint on the test split, which nothing has touched before."""
    best = folder / "checkpoints" / "best.ckpt"
    parts.trainer.test(
        parts.task, datamodule=parts.data, ckpt_path=best if best.is_file() else None, verbose=False, weights_only=True
    )
    scores = parts.task.scores
    assert scores is not None
    results |= {f"test/{name}": value for name, value in scores.numbers.items()}
    results |= {f"test/f1/{name}": value for name, value in scores.per_class.items()}
    run_folder.write_json(folder / "scores.json", scores.to_plain())
    assert parts.task.predictions is not None
    if hardware.is_main_process():
        parts.task.predictions.write(folder / "predictions.jsonl")
    return scores


def evaluate(run_or_checkpoint: str, overrides: dict[str, Any], *, split: str = "test") -> Scores:
    """Scores a trained model again, with the data settings it was trained with unless some are overridden.

    Args:
        run_or_checkpoint: run folder, checkpoint file, or `latest`.
        overrides: settings of the data, such as {"root": "elsewhere"}.
        split: "test" or "val".

    Raises:
        InputError: when there is no such run, or the data does not fit its model.
    """
    restored = restore(run_or_checkpoint)
    data: DataModule = build({**restored.settings["data"], **overrides}, "data", {"seed": restored.settings["seed"]})
    data.spec = restored.spec
    data.prepare_data()
    wishes = {**restored.settings["trainer"], **restored.settings.get("hardware", {}), "devices": 1, "num_nodes": 1}
    facts = hardware.probe()
    try:
        choices = hardware.plan(facts, wishes)
    except InputError as mistake:  # it was trained elsewhere
        log.warning("%s; scored with what this machine has", mistake)
        choices = hardware.plan(facts, {"devices": 1, "num_nodes": 1})
    hardware.put_into_effect(choices)
    trainer = Trainer(
        **hardware.for_trainer(choices),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loop = {"test": trainer.test, "val": trainer.validate}[split]
    loop(restored.task, datamodule=data, verbose=False)
    assert restored.task.scores is not None
    return restored.task.scores


@rank_zero_only
def report(folder: Path) -> None:
    """Writes report.html; a report that cannot be made is told and never costs the run."""
    try:
        write_report(folder)
    except Exception:
        log.exception("report.html could not be written")


def count_parameters(task: Task) -> int:
    """Numbers that training can change."""
    return sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)


def peak_memory_mb() -> float:
    """The most memory held so far: the GPU's where there is one, else this process's, in units of 10^6 bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def show_start(console: Console, parts: Parts, composed: Composed) -> None:
    """What will be trained on what, and what was chosen for this machine and why."""
    sizes = ", ".join(f"{size:,} {split}" for split, size in parts.data.sizes.items())
    lines = {
        "data": f"{composed.data}: {sizes}",
        "model": f"{composed.model}: {count_parameters(parts.task):,} parameters",
        "batch": f"{parts.data.batch_size} = {parts.trainer.world_size} processes x "
        f"{parts.trainer.accumulate_grad_batches} parts x {parts.data.batch_size // parts.data.shard.num_parts}",
        "lr": parts.task.learning_rate(parts.data.batch_size),
        **{key: f"{choice.value} ({choice.reason})" for key, choice in parts.choices.items()},
        "folder": str(composed.folder),
    }
    for key, line in lines.items():
        console.print(f"{key:18}{line}", highlight=False, soft_wrap=True, markup=False)


def show_end(console: Console, results: dict[str, Any], scores: Scores, folder: Path) -> None:
    """The score tables and where everything lies."""
    for table in scores.tables:
        console.print(table.to_rich())
    keys = [key for key in results if key.startswith(("val/", "test/")) and key.count("/") == 1]
    for key in keys:
        console.print(f"{key:20}{results[key]:.4f}", highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
