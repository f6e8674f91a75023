"""Builds everything a run needs from its config: data, module, loggers, callbacks, trainer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from arclight import hardware
from arclight.callbacks.best_checkpoint import EpochScores, best_checkpoints, build_callbacks
from arclight.callbacks.changed_settings import ChangedSettings
from arclight.callbacks.data_identity import DataIdentity, identity_of
from arclight.callbacks.exact_resume import ExactResume
from arclight.callbacks.gradient_order import GradientOrder
from arclight.callbacks.loss_logging import LossLogging
from arclight.callbacks.module_source import ModuleSource
from arclight.callbacks.progress import progress_callback
from arclight.callbacks.throughput import Throughput
from arclight.checkpoint.contents import CheckpointContents, build_module, check_fits, load_checkpoint, steps_done
from arclight.checkpoint.last_checkpoint import BeforeEpoch, LastCheckpoint
from arclight.checkpoint.position import check_end
from arclight.config.compose import RunConfig
from arclight.config.groups import late_names, module_group, module_settings, resolve_late
from arclight.config.hardware_plan import plan_hardware
from arclight.config.instantiate import build, find_target, parameters_of
from arclight.data.datamodule import DataModule
from arclight.data.datasets import Datasets
from arclight.distributed.signals import Interruption, take_over_signals
from arclight.interfaces import Monitor, monitor_of, standard_name
from arclight.loggers.factory import build_loggers, log_metadata
from arclight.loggers.record import ROWS, Record, RecordedRows
from arclight.preflight.module_checks import missing_methods

Decisions = dict[str, hardware.Decision]
NO_DEFAULT = (None, inspect.Parameter.empty)  # of a parameter that somebody has to choose


@dataclass(frozen=True)
class RunComponents:
    """The objects of a run and the hardware decisions they were built with."""

    data: LightningDataModule | None  # None: the LightningModule has the loaders
    module: LightningModule
    trainer: Trainer
    throughput: Throughput
    epochs: EpochScores
    monitor: Monitor | None
    exact: ExactResume
    identity: DataIdentity
    decisions: Decisions
    ckpt_path: Path | None  # that the run resumes from


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
        OtherDataError: for a checkpoint of other data.
    """
    settings = run_config.settings
    decisions = plan_hardware(settings, hardware_info)
    seed_everything(settings["seed"], workers=True, verbose=False)
    hardware.apply_backend_settings(decisions)
    identity = DataIdentity(ckpt_path, may_differ=run_config.resume_with_changes)
    data, accumulation_steps = prepare_data(settings, decisions, identity)
    settings = resolve_late(settings, (getattr(data, "data_info", None), data))
    module = prepare_module(settings, data, decisions, ckpt_path)
    num_parameters, num_steps = count_parameters(module), getattr(data, "steps_per_epoch", None)
    decisions = plan_hardware(
        settings, hardware_info, num_parameters, steps_per_epoch=num_steps, accumulation_steps=accumulation_steps
    )
    compile_loss: Any = getattr(module, "compile_loss", None)
    if (mode := decisions["compile"].value) and compile_loss is not None:
        compile_loss("default" if mode is True else mode)
    num_rows = None if ckpt_path is None else load_checkpoint(ckpt_path).get(ROWS)
    record = Record.read(run_config.folder, steps_done(ckpt_path), num_rows)
    named: dict[str, Any] = {"tags": settings.get("tags") or (), "record": record}
    loggers += build_loggers(settings["logger"], run_config.folder, settings["name"], **named)
    log_metadata(loggers, {**settings, "parameters": num_parameters})
    monitor = monitor_of(module, settings)
    throughput, epochs = Throughput(run_config.started), EpochScores(monitor)
    if isinstance(data, DataModule):  # its loaders know
        exact = ExactResume(data.seed)
    else:
        exact = ExactResume(settings["seed"], settings["data"].get("batch_size"))
    given = {"folder": run_config.folder / "checkpoints", "interruption": interruption}
    last: LastCheckpoint = build(settings["checkpoint"], "checkpoint", given)
    losses = LossLogging(throughput)
    contents = CheckpointContents(settings, run_config.data, run_config.model)
    callbacks = [BeforeEpoch(last), exact, identity, ModuleSource(), ChangedSettings(settings), throughput, losses, epochs]
    callbacks += [contents, GradientOrder(), RecordedRows(record)]
    callbacks += [*other_callbacks(run_config, monitor, last, losses, console), last]
    allow_unused_parameters(decisions, module, callbacks)
    trainer = build_trainer(run_config, decisions, loggers, callbacks, last, accumulation_steps)
    return RunComponents(data, module, trainer, throughput, epochs, monitor, exact, identity, decisions, ckpt_path)


def prepare_data(
    settings: Mapping[str, Any], decisions: Decisions, identity: DataIdentity
) -> tuple[LightningDataModule | None, int]:
    """Returns the data module and the number of accumulation steps.

    The fit splits of the engine's own data modules are loaded; those of others where the config takes values from the data.
    Then `identity` checks that they are those of the checkpoint.
    """
    if not settings["data"]:
        return None, settings["trainer"].get("accumulate_grad_batches") or 1
    data: Any = build_data(settings, workers=decisions["workers"].value)
    world_size = hardware.count_devices(decisions["devices"].value) * decisions["num_nodes"].value
    requested = settings["trainer"].get("accumulate_grad_batches")
    sizes = settings["data"].get("batch_size"), settings["data"].get("max_batch_per_device")
    if isinstance(data, DataModule):
        sizes = data.batch_size, data.max_batch_per_device
    steps = hardware.accumulation_steps(sizes[0], world_size, sizes[1], requested)
    if isinstance(data, DataModule) or any(late_names(settings)):
        data.prepare_data()
        data.setup("fit")
        identity.check(identity_of(data))
    return data, steps


def build_data(settings: Mapping[str, Any], *, workers: int, is_trusted: bool = True) -> LightningDataModule:
    """Returns the data module; it gets the seed and `num_workers` if it takes them and the config does not set them.

    One that does not know the engine keeps its own defaults: it gets those that its config sets to null, or that it requires.
    """
    config, offers = settings["data"], {"seed": settings["seed"], "num_workers": workers}
    name = str(config.get("_target_"))
    taken = parameters_of(name, "data", is_trusted=is_trusted, arguments=config)
    target = find_target(name, "data", is_trusted=is_trusted, arguments=config)
    is_own = inspect.isclass(target) and issubclass(target, DataModule | Datasets)
    given = {
        key: value
        for key, value in offers.items()
        if key in taken
        and config.get(key) is None
        and (is_own or key in config or any(taken[key].default is none for none in NO_DEFAULT))
    }
    data: LightningDataModule = build(config, "data", given, is_trusted=is_trusted)
    return data


def prepare_module(
    settings: Mapping[str, Any], data: LightningDataModule | None, decisions: Decisions, ckpt_path: Path | None
) -> LightningModule:
    """Returns the LightningModule, its net built for the data; raises InputError for a checkpoint of another net."""
    data_info = getattr(data, "data_info", None)
    module: LightningModule = build_module(settings, data_info, channels_last=decisions["channels_last"].value)
    if errors := list(missing_methods(module, module_group(settings))):
        raise errors[0]
    if ckpt_path is not None:
        check_fits(module, ckpt_path)
        check_end(ckpt_path, settings["trainer"])
    return module


def other_callbacks(
    run_config: RunConfig, monitor: Monitor | None, last: LastCheckpoint, losses: LossLogging, console: Console
) -> list[Callback]:
    """Returns the callbacks for the best checkpoints, those of the config, and the progress bar."""
    is_shown = run_config.settings["trainer"].get("enable_progress_bar") is not False
    return [
        *best_checkpoints(run_config.folder / "checkpoints", monitor, last.save_top_k),
        *build_callbacks(run_config.settings["callbacks"], monitor),
        *([progress_callback(console, losses)] if is_shown and not console.quiet else []),
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


def can_test(module: LightningModule, data: LightningDataModule | None) -> bool:
    """Returns whether the module has a test step, and it or the data module a test loader."""
    owners = [owner for owner in (module, data) if owner is not None]
    return is_overridden("test_step", module) and any(is_overridden("test_dataloader", owner) for owner in owners)


def allow_unused_parameters(decisions: Decisions, module: LightningModule, callbacks: Sequence[Callback]) -> None:
    """Lets ddp expect parameters without a gradient, in manual optimization and where a callback freezes some."""
    reason = None if module.automatic_optimization else "manual optimization: a step may leave parameters without a gradient"
    if any(getattr(callback, "leaves_unused_parameters", False) for callback in callbacks):
        reason = "a callback freezes parameters for some epochs"
    if decisions["strategy"].value == "ddp" and reason is not None:
        decisions["strategy"] = hardware.Decision("ddp_find_unused_parameters_true", reason)


def configured_monitor(settings: Mapping[str, Any]) -> Monitor | None:
    """Returns the monitor of a config, or of the class of its module, before the module is built."""
    return monitor_of(find_target(str(module_settings(settings).get("_target_", "")), module_group(settings)), settings)


def monitor_in_results(monitor: Monitor | None) -> dict[str, str | None]:
    """Returns `monitor` and `monitor_mode` of results.json: the metric that selects the best checkpoint, None without one."""
    if monitor is None:
        return {"monitor": None, "monitor_mode": None}
    return {"monitor": standard_name("val", monitor.metric), "monitor_mode": monitor.mode}


def count_parameters(module: LightningModule) -> int:
    """Returns the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
