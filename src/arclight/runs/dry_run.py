"""The dry run (`preflight=full`): one real batch through everything a run does, in a directory that is removed afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.table import Table
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from arclight import hardware
from arclight.callbacks.loss_logging import LossLogging
from arclight.checkpoint.contents import last_checkpoint, restore
from arclight.config.compose import RunConfig
from arclight.console.terminal import format_metric, open_console, print_lines, print_tables
from arclight.data.datamodule import DataModule
from arclight.distributed.environment import detect_launch, is_main_process
from arclight.distributed.signals import Interruption
from arclight.interfaces import example_inputs, standard_name
from arclight.runs.build import RunComponents, build_components, can_test, count_parameters
from arclight.runs.run import Run
from arclight.runs.temporary import temporary_directory

ONE_BATCH = {  # settings of the trainer that replace the config's
    "max_epochs": 1,
    "max_steps": None,
    "max_time": None,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "check_val_every_n_epoch": 1,
    "val_check_interval": None,
    "overfit_batches": None,
    "fast_dev_run": None,
    "log_every_n_steps": 1,
}


@contextmanager
def temporary(run_config: RunConfig) -> Iterator[RunConfig]:
    """Context manager that moves the run to a temporary directory, and removes the empty ones that Hydra made for it."""
    with suppress(OSError):
        for folder in (run_config.folder, run_config.folder.parent, run_config.folder.parent.parent):
            folder.rmdir()
    is_on_one_machine = run_config.settings["trainer"].get("num_nodes") in (None, 1, "auto")
    is_on_one_machine &= detect_launch(os.environ).num_nodes == 1
    # machines share the working directory, not their temporary ones
    with temporary_directory("preflight", None if is_on_one_machine else Path.cwd()) as top:
        yield replace(run_config, folder=top / "runs" / "dry_run", resume="none")


@dataclass
class DryRun:
    """The steps of a dry run: name, outcome and seconds."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Context manager that times one step; the strings added to the list it yields become the outcome."""
        outcome: list[str] = []
        start = time.perf_counter()
        try:
            yield outcome
        except BaseException:
            self.rows.append((name, "failed", f"{time.perf_counter() - start:.2f}"))
            raise
        self.rows.append((name, ", ".join(outcome) or "works", f"{time.perf_counter() - start:.2f}"))

    def to_rich(self) -> Table:
        """Returns the steps as a table for the terminal."""
        table = Table(title="dry run: one batch of everything, nothing trained", title_justify="left")
        for heading in ("step", "outcome", "seconds"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def run_dry_run(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption) -> Run:
    """Tries data, net, training, validation, checkpoint, test and prediction; every process of the run calls this.

    Loggers are left out: their settings have been checked, and nothing is sent. Raises InputError as a run does.
    """
    console = open_console(quiet=not is_main_process())
    dry_run = DryRun()
    try:
        try_all(run_config, hardware_info, interruption, dry_run)
    finally:
        print_tables(console, [dry_run.to_rich()])
    print_lines(console, ["nothing was trained or saved; leave out preflight=full to train"])
    return Run(run_config.folder, results={})


def try_all(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption, dry_run: DryRun) -> None:
    """Runs the steps one after the other, each with its time."""
    trainer_settings = {**run_config.settings["trainer"], **ONE_BATCH}
    settings = {**run_config.settings, "trainer": trainer_settings, "logger": {}}
    with dry_run.step("data and net") as outcome:
        one_batch, quiet = replace(run_config, settings=settings), open_console(quiet=True)
        components = build_components(one_batch, hardware_info, [], quiet, interruption=interruption)
        trainer, module, data = components.trainer, components.module, components.data
        sizes: Mapping[str, int] = getattr(data, "sizes", {})
        outcome += [*(f"{size:,} {split}" for split, size in sizes.items()), f"{count_parameters(module):,} parameters"]
    metric = None if components.monitor is None else components.monitor.metric
    losses = next(callback for callback in trainer.callbacks if isinstance(callback, LossLogging))  # type: ignore[attr-defined]
    trainer.limit_train_batches = trainer.accumulate_grad_batches  # one global batch
    with dry_run.step("train") as outcome:
        trainer.fit(module, datamodule=data)  # validates as well, for the checkpoint of the best epoch
        loss = "" if losses.last_loss is None else f", loss {format_metric(losses.last_loss)}"
        outcome.append(f"{trainer.global_step} step{loss}")
    with dry_run.step("validate") as outcome:
        if is_overridden("validation_step", module):
            trainer.validate(module, datamodule=data, verbose=False)
        if metric in trainer.callback_metrics:  # not one of training
            outcome.append(f"{metric} {format_metric(float(trainer.callback_metrics[metric]))}")
    with dry_run.step("checkpoint") as outcome:
        restored = check_round_trip(components, run_config.folder)
        files = last_checkpoint(run_config.folder).parent.rglob("*")
        size = sum(file.stat().st_size for file in files if file.is_file())
        outcome.append(f"{size / 1e6:,.1f} MB saved, loaded with weights_only=True, the same weights")
    with dry_run.step("test") as outcome:
        if can_test(module, data):
            tested = trainer.test(module, datamodule=data, verbose=False)
            named = {standard_name("test", name): value for logged in tested for name, value in logged.items()}
            name = None if metric is None else standard_name("test", metric.removeprefix("val/").removeprefix("val_"))
            outcome += [f"{key} {format_metric(value)}" for key, value in named.items() if key == name or name not in named]
    if isinstance(data, DataModule):
        with dry_run.step("predict") as outcome:
            outcome.append(predict(components, data, restored))


def check_round_trip(components: RunComponents, folder: Path) -> LightningModule:
    """Returns the module restored from its last checkpoint, and asserts that its weights are those that were saved."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(components.module, options=options)  # collective for sharded weights
    restored: LightningModule = restore(last_checkpoint(folder)).module
    state = restored.state_dict()
    if is_main_process():
        different = [name for name, weight in weights.items() if not torch.equal(weight.cpu(), state[name])]
        assert not different, f"the checkpoint restores other weights: {', '.join(different[:5])}"
    return restored


def predict(components: RunComponents, data: DataModule, restored: LightningModule) -> str:
    """Returns the shape of the restored module's output for a batch of the test split, in words."""
    batch = next(iter(data.test_dataloader()))
    restored = restored.to(components.trainer.strategy.root_device).eval()
    with torch.inference_mode():
        logits = restored(*example_inputs(batch))
    assert torch.isfinite(logits).all(), "the restored module's output is not finite"
    return f"logits {tuple(logits.shape)} of the restored module, all finite"
