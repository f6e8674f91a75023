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
from arclight.callbacks.loss_logging import LossLogging
from arclight.callbacks.progress import progress_callback
from arclight.callbacks.throughput import Throughput
from arclight.checkpoint.contents import CheckpointContents, build_module, check_fits, steps_done
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.config.compose import RunConfig
from arclight.config.instantiate import build, find_target, parameters_of
from arclight.data.datamodule import DataModule
from arclight.distributed.signals import Interruption, take_over_signals
from arclight.images.info import ImageInfo
from arclight.loggers.factory import build_loggers, record_facts
from arclight.modules.supervised import SupervisedModule


@dataclass(frozen=True)
class RunComponents:
    """Everything that a fit needs, put together."""

    data: DataModule
    module: SupervisedModule
    trainer: Trainer
    throughput: Throughput
    epochs: EpochScores
    decisions: dict[str, hardware.Decision]


def build_components(
    run_config: RunConfig,
    hardware_info: hardware.HardwareInfo,
    loggers: list[Logger],
    console: Console,
    *,
    interruption: Interruption | None = None,
    ckpt_path: Path | None = None,
) -> RunComponents:
    """Data first, because the net is built for its facts; then net, trackers, callbacks, trainer.

    Args:
        run_config: the run.
        hardware_info: of this machine.
        loggers: where the trackers go, so that who asked can close them, whatever happens.
        console: what is seen while it runs.
        interruption: the signals that this process hears.
        ckpt_path: the checkpoint that the run goes on from.

    Raises:
        InputError: for a mistake in the config or the data, or a checkpoint of another net.
    """
    settings = run_config.settings
    decisions = plan_for(settings, hardware_info)
    # null stands for Lightning's own default
    chosen = {key: value for key, value in settings["trainer"].items() if value is not None}
    chosen |= hardware.for_trainer(decisions)
    seed_everything(settings["seed"], workers=True, verbose=False)
    hardware.apply_backend_settings(decisions)
    world_size = hardware.count_devices(decisions["devices"].value) * decisions["num_nodes"].value

    data = build_data(settings, workers=decisions["workers"].value)
    num_parts = hardware.accumulation_steps(data.batch_size, world_size, data.max_batch_per_device)
    num_parts = num_parts if num_parts > 1 else chosen.get("accumulate_grad_batches") or 1
    data.prepare_data()
    data.setup("fit")
    assert data.data_info is not None
    module = build_module(settings, data.data_info, channels_last=decisions["channels_last"].value)
    if ckpt_path is not None:
        check_fits(module, ckpt_path)
    known = {"steps_per_epoch": data.steps_per_epoch, "accumulation_steps": num_parts}
    decisions = plan_for(settings, hardware_info, num_parameters=count_parameters(module), **known)
    if mode := decisions["compile"].value:
        module.compile_loss("default" if mode is True else mode)
    chosen["strategy"] = decisions["strategy"].value

    loggers += build_loggers(settings["logger"], run_config.folder, settings["name"], after_step=steps_done(ckpt_path))
    record_facts(loggers, {**settings, "parameters": count_parameters(module)})
    throughput, epochs = Throughput(run_config.started), EpochScores(module.monitor)
    losses = LossLogging(throughput)
    last: LastCheckpoint = build(
        settings["checkpoint"], "checkpoint", {"folder": run_config.folder / "checkpoints", "interruption": interruption}
    )
    given = {
        "logger": loggers,
        "callbacks": [throughput, losses, epochs, *callbacks_for(run_config, module, losses, console), last],
        "accumulate_grad_batches": num_parts,
        "default_root_dir": str(run_config.folder),
        "enable_progress_bar": False,  # ours is no bar of Lightning's
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders shard themselves
    }
    trainer: Trainer = build(chosen, "trainer", given | placing_of(chosen["strategy"], last))
    take_over_signals(trainer)
    return RunComponents(data, module, trainer, throughput, epochs, decisions)


def callbacks_for(run_config: RunConfig, module: SupervisedModule, losses: LossLogging, console: Console) -> list[Callback]:
    """What keeps checkpoints, what the user chose, and what shows how far the run is."""
    return [
        CheckpointContents(run_config.settings, run_config.data, run_config.model),
        GradientOrder(),
        best_checkpoint(run_config.folder / "checkpoints", module.monitor),
        *build_callbacks(run_config.settings["callbacks"], module.monitor),
        *([] if console.quiet else [progress_callback(console, losses)]),
    ]


def plan_for(
    settings: Mapping[str, Any],
    hardware_info: hardware.HardwareInfo,
    num_parameters: int | None = None,
    *,
    steps_per_epoch: int | None = None,
    accumulation_steps: int = 1,
) -> dict[str, hardware.Decision]:
    """What the config and this machine lead to; `num_parameters` once the net is known, the others once the data is."""
    has_images = getattr(find_target(settings["data"].get("_target_", ""), "data"), "info_type", None) is ImageInfo
    return hardware.plan(
        hardware_info,
        hardware.requested_settings(settings),
        num_parameters,
        has_fixed_shapes=has_images or settings["data"].get("packing") == "fixed",
        steps_per_epoch=steps_per_epoch,
        accumulation_steps=accumulation_steps,
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
    return str(find_target(str(settings["module"].get("_target_", "")), "module").monitor.metric)


def count_parameters(module: SupervisedModule) -> int:
    """Numbers that training can change."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
