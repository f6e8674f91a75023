"""A config put together: data, net, task, trackers, callbacks and trainer, made for each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from rich.console import Console

from arclight import hardware
from arclight.callbacks.best_checkpoint import EpochScores, best_checkpoint, build_callbacks
from arclight.callbacks.gradient_order import GradientOrder
from arclight.callbacks.progress import progress_callback
from arclight.callbacks.throughput import Throughput
from arclight.checkpoint.contents import CheckpointContents, build_task, check_fits, steps_done
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.config.compose import Composed
from arclight.config.instantiate import build, find_target, parameters_of
from arclight.data.datamodule import DataModule
from arclight.distributed.signals import Interruption, take_over_signals
from arclight.images.info import ImageSpec
from arclight.loggers.factory import build_trackers, record_facts
from arclight.modules.supervised import Task


@dataclass(frozen=True)
class Parts:
    """Everything that a fit needs, put together."""

    data: DataModule
    task: Task
    trainer: Trainer
    throughput: Throughput
    epochs: EpochScores
    choices: dict[str, hardware.Choice]


def put_together(
    composed: Composed,
    facts: hardware.Facts,
    loggers: list[Logger],
    console: Console,
    *,
    interruption: Interruption | None = None,
    begin: Path | None = None,
) -> Parts:
    """Data first, because the net is built for its facts; then net, trackers, callbacks, trainer.

    Args:
        composed: the run.
        facts: of this machine.
        loggers: where the trackers go, so that who asked can close them, whatever happens.
        console: what is seen while it runs.
        interruption: the signals that this process hears.
        begin: the checkpoint that the run goes on from.

    Raises:
        InputError: for a mistake in the config or the data, or a checkpoint of another net.
    """
    settings = composed.settings
    choices = plan_for(settings, facts)
    # null stands for Lightning's own default
    chosen = {key: value for key, value in settings["trainer"].items() if value is not None}
    chosen |= hardware.for_trainer(choices)
    seed_everything(settings["seed"], workers=True, verbose=False)
    hardware.put_into_effect(choices)
    world_size = hardware.count_devices(choices["devices"].value) * choices["num_nodes"].value

    data = build_data(settings, workers=choices["workers"].value)
    num_parts = hardware.accumulation(data.batch_size, world_size, data.max_batch_per_device)
    num_parts = num_parts if num_parts > 1 else chosen.get("accumulate_grad_batches") or 1
    data.prepare_data()
    data.setup("fit")
    assert data.spec is not None
    task = build_task(settings, data.spec, channels_last=choices["channels_last"].value)
    if begin is not None:
        check_fits(task, begin)
    known = {"steps_per_epoch": data.steps_per_epoch, "num_parts": num_parts}
    choices = plan_for(settings, facts, num_parameters=count_parameters(task), **known)
    if mode := choices["compile"].value:
        task.compile_loss("default" if mode is True else mode)
    chosen["strategy"] = choices["strategy"].value

    loggers += build_trackers(settings["tracker"], composed.folder, settings["name"], after_step=steps_done(begin))
    record_facts(loggers, {**settings, "parameters": count_parameters(task)})
    throughput, epochs = Throughput(composed.started), EpochScores(task.monitor)
    last: LastCheckpoint = build(
        settings["checkpoint"], "checkpoint", {"folder": composed.folder / "checkpoints", "interruption": interruption}
    )
    given = {
        "logger": loggers,
        "callbacks": [throughput, epochs, *callbacks_for(composed, task, throughput, console), last],
        "accumulate_grad_batches": num_parts,
        "default_root_dir": str(composed.folder),
        "enable_progress_bar": False,  # ours is no bar of Lightning's
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders shard themselves
    }
    trainer: Trainer = build(chosen, "trainer", given | placing_of(chosen["strategy"], last))
    take_over_signals(trainer)
    return Parts(data, task, trainer, throughput, epochs, choices)


def callbacks_for(composed: Composed, task: Task, throughput: Throughput, console: Console) -> list[Callback]:
    """What keeps checkpoints, what the user chose, and what shows how far the run is."""
    return [
        CheckpointContents(composed.settings, composed.data, composed.model),
        GradientOrder(),
        best_checkpoint(composed.folder / "checkpoints", task.monitor),
        *build_callbacks(composed.settings["callbacks"], task.monitor),
        *([] if console.quiet else [progress_callback(console, throughput)]),
    ]


def plan_for(
    settings: Mapping[str, Any],
    facts: hardware.Facts,
    num_parameters: int | None = None,
    *,
    steps_per_epoch: int | None = None,
    num_parts: int = 1,
) -> dict[str, hardware.Choice]:
    """What the config and this machine lead to; `num_parameters` once the net is known, the others once the data is."""
    has_images = getattr(find_target(settings["data"].get("_target_", ""), "data"), "spec_type", None) is ImageSpec
    return hardware.plan(
        facts,
        hardware.wishes_of(settings),
        num_parameters,
        has_fixed_shapes=has_images or settings["data"].get("packing") == "fixed",
        steps_per_epoch=steps_per_epoch,
        num_parts=num_parts,
    )


def placing_of(strategy: Any, last: LastCheckpoint) -> dict[str, Any]:
    """What the trainer needs besides the strategy's name: our own for fsdp, which any other goes on from."""
    from arclight.checkpoint.fsdp import ShardedStrategy  # torch's sharding loads here
    from arclight.checkpoint.single_file import CheckpointFiles

    if strategy == "fsdp":
        # sharded weights seen in inference mode could not be trained again
        return {"strategy": ShardedStrategy(keep=last.keep), "inference_mode": False}
    return {"plugins": [CheckpointFiles(keep=last.keep, safetensors=last.safetensors)]}


def build_data(settings: dict[str, Any], *, workers: int) -> DataModule:
    """The data set; one that decodes files does so in as many threads as the plan says, unless its own settings say."""
    given = {"seed": settings["seed"]}
    takes = "num_workers" in parameters_of(settings["data"]["_target_"], "data")
    if takes and settings["data"].get("num_workers") is None:
        given["num_workers"] = workers
    data: DataModule = build(settings["data"], "data", given)
    return data


def monitor_of(settings: dict[str, Any]) -> str:
    """The metric that the task of this config is judged by."""
    return str(find_target(str(settings["task"].get("_target_", "")), "task").monitor.metric)


def count_parameters(task: Task) -> int:
    """Numbers that training can change."""
    return sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
