"""Builds everything a run needs from its config: data, module, loggers, callbacks, trainer."""

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
from arclight.callbacks.loss_logging import LossLogging
from arclight.callbacks.progress import progress_callback
from arclight.callbacks.throughput import Throughput
from arclight.checkpoint.contents import CheckpointContents, build_module, check_fits, steps_done
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.config.compose import RunConfig
from arclight.config.hardware_plan import plan_hardware
from arclight.config.instantiate import build, find_target, parameters_of
from arclight.data.datamodule import DataModule
from arclight.distributed.signals import Interruption, take_over_signals
from arclight.interfaces import monitor_of
from arclight.loggers.factory import build_loggers, log_metadata
from arclight.modules.supervised import SupervisedModule

Decisions = dict[str, hardware.Decision]


@dataclass(frozen=True)
class RunComponents:
    """The objects of a run and the hardware decisions they were built with."""

    data: DataModule
    module: SupervisedModule
    trainer: Trainer
    throughput: Throughput
    epochs: EpochScores
    decisions: Decisions


def build_components(
    run_config: RunConfig,
    hardware_info: hardware.HardwareInfo,
    loggers: list[Logger],
    console: Console,
    *,
    interruption: Interruption | None = None,
    ckpt_path: Path | None = None,
) -> RunComponents:
    """Builds the data first, because the net needs its metadata; then module, loggers, callbacks and trainer.

    `loggers` is a list that the loggers are added to, so that the caller can close them after an error.

    Raises:
        InputError: for an error in the config or the data, or a checkpoint of another net.
    """
    settings = run_config.settings
    decisions = plan_hardware(settings, hardware_info)
    seed_everything(settings["seed"], workers=True, verbose=False)
    hardware.apply_backend_settings(decisions)
    data, accumulation_steps = prepare_data(settings, decisions)
    module = prepare_module(settings, data, decisions, ckpt_path)
    num_parameters, num_steps = count_parameters(module), data.steps_per_epoch
    decisions = plan_hardware(
        settings, hardware_info, num_parameters, steps_per_epoch=num_steps, accumulation_steps=accumulation_steps
    )
    if mode := decisions["compile"].value:
        module.compile_loss("default" if mode is True else mode)
    loggers += build_loggers(settings["logger"], run_config.folder, settings["name"], after_step=steps_done(ckpt_path))
    log_metadata(loggers, {**settings, "parameters": num_parameters})
    throughput, epochs = Throughput(run_config.started), EpochScores(monitor_of(module))
    given = {"folder": run_config.folder / "checkpoints", "interruption": interruption}
    last: LastCheckpoint = build(settings["checkpoint"], "checkpoint", given)
    losses = LossLogging(throughput)
    callbacks = [throughput, losses, epochs, *other_callbacks(run_config, module, losses, console), last]
    trainer = build_trainer(run_config, decisions, loggers, callbacks, last, accumulation_steps)
    return RunComponents(data, module, trainer, throughput, epochs, decisions)


def prepare_data(settings: Mapping[str, Any], decisions: Decisions) -> tuple[DataModule, int]:
    """Returns the data module with its fit splits loaded, and the number of accumulation steps."""
    data = build_data(settings, workers=decisions["workers"].value)
    world_size = hardware.count_devices(decisions["devices"].value) * decisions["num_nodes"].value
    requested = settings["trainer"].get("accumulate_grad_batches")
    steps = hardware.accumulation_steps(data.batch_size, world_size, data.max_batch_per_device, requested)
    data.prepare_data()
    data.setup("fit")
    return data, steps


def build_data(settings: Mapping[str, Any], *, workers: int) -> DataModule:
    """Returns the data module; `workers` is its `num_workers` unless the config sets one."""
    given = {"seed": settings["seed"]}
    has_workers = "num_workers" in parameters_of(settings["data"]["_target_"], "data")
    if has_workers and settings["data"].get("num_workers") is None:
        given["num_workers"] = workers
    data: DataModule = build(settings["data"], "data", given)
    return data


def prepare_module(
    settings: Mapping[str, Any], data: DataModule, decisions: Decisions, ckpt_path: Path | None
) -> SupervisedModule:
    """Returns the LightningModule, its net built for the data; raises InputError for a checkpoint of another net."""
    module: SupervisedModule = build_module(settings, data.data_info, channels_last=decisions["channels_last"].value)
    if ckpt_path is not None:
        check_fits(module, ckpt_path)
    return module


def other_callbacks(run_config: RunConfig, module: SupervisedModule, losses: LossLogging, console: Console) -> list[Callback]:
    """Returns the callbacks for checkpoint contents and the best checkpoint, those of the config, and the progress bar."""
    return [
        CheckpointContents(run_config.settings, run_config.data, run_config.model),
        GradientOrder(),
        best_checkpoint(run_config.folder / "checkpoints", monitor_of(module)),
        *build_callbacks(run_config.settings["callbacks"], monitor_of(module)),
        *([] if console.quiet else [progress_callback(console, losses)]),
    ]


def build_trainer(
    run_config: RunConfig,
    decisions: Decisions,
    loggers: list[Logger],
    callbacks: list[Callback],
    last: LastCheckpoint,
    accumulation_steps: int,
) -> Trainer:
    """Returns the Trainer of the config and the hardware plan; Lightning leaves signals to `Interruption`."""
    # null selects Lightning's own default
    settings = {key: value for key, value in run_config.settings["trainer"].items() if value is not None}
    settings |= hardware.for_trainer(decisions)
    given = {
        "logger": loggers,
        "callbacks": callbacks,
        "accumulate_grad_batches": accumulation_steps,
        "default_root_dir": str(run_config.folder),
        "enable_progress_bar": False,  # replaced by `progress_callback`
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders shard themselves
    }
    trainer: Trainer = build(settings, "trainer", given | checkpoint_io(settings["strategy"], last))
    take_over_signals(trainer)
    return trainer


def checkpoint_io(strategy: Any, last: LastCheckpoint) -> dict[str, Any]:
    """Returns the trainer's arguments that write our checkpoints: a strategy for fsdp, else a plugin. Each reads both kinds."""
    from arclight.checkpoint.fsdp import ShardedStrategy  # imports torch.distributed.fsdp
    from arclight.checkpoint.single_file import CheckpointFiles

    if strategy == "fsdp":
        # sharded weights used in inference mode cannot be trained afterwards
        return {"strategy": ShardedStrategy(keep=last.keep), "inference_mode": False}
    return {"plugins": [CheckpointFiles(keep=last.keep, safetensors=last.safetensors)]}


def monitored_metric(settings: Mapping[str, Any]) -> str:
    """Returns the name of the metric that selects the best checkpoint of this config."""
    return monitor_of(find_target(str(settings["module"].get("_target_", "")), "module")).metric


def count_parameters(module: SupervisedModule) -> int:
    """Returns the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
