"""`preflight=full`: one real batch of everything that a run does, in a folder that is gone afterwards."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from arclight import hardware
from arclight.checkpoint.contents import last_checkpoint, restore
from arclight.config.compose import RunConfig
from arclight.console.terminal import open_console, say, show
from arclight.distributed.environment import detect_launch, is_main_process
from arclight.distributed.signals import Interruption
from arclight.interfaces import example_inputs
from arclight.modules.supervised import SupervisedModule
from arclight.runs.build import RunComponents, build_components, count_parameters
from arclight.runs.run import Run

ONE_BATCH = {  # settings of the trainer that make it short, whatever the config says
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
    """Inside, the run lives in a folder that is removed at the end; so are the empty ones that Hydra made for it."""
    with suppress(OSError):
        for made in (run_config.folder, run_config.folder.parent, run_config.folder.parent.parent):
            made.rmdir()
    is_on_one_machine = run_config.settings["trainer"].get("num_nodes") in (None, 1, "auto")
    is_on_one_machine &= detect_launch(os.environ).num_nodes == 1
    # several machines see the working folder, but not each other's temporary ones
    top = Path(tempfile.mkdtemp(prefix="arclight-preflight-", dir=None if is_on_one_machine else Path.cwd()))
    try:
        yield replace(run_config, folder=top / "runs" / "rehearsal", resume="none")
    finally:
        shutil.rmtree(top, ignore_errors=True)


@dataclass
class DryRun:
    """What was tried, in its order: name, what came of it, seconds."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Inside, one thing is tried; what is put into the list is told of it."""
        told: list[str] = []
        began = time.perf_counter()
        try:
            yield told
        except BaseException:
            self.rows.append((name, "failed", time.perf_counter() - began))
            raise
        self.rows.append((name, ", ".join(told) or "works", time.perf_counter() - began))

    def to_rich(self) -> Table:
        """For the terminal."""
        table = Table(title="preflight: one batch of everything, nothing trained", title_justify="left")
        for heading in ("tried", "what came of it", "seconds"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
        for name, told, seconds in self.rows:
            table.add_row(name, told, f"{seconds:.2f}")
        return table


class Watch(Callback):
    """When validation took place inside of a fit, and the loss of its training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.began = self.validation_s = 0.0
        self.loss = math.nan

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss = float(outputs["loss"]) * trainer.accumulate_grad_batches

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validation_s = time.perf_counter() - self.began


def run_dry_run(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption) -> Run:
    """Tries data, net, training, validation, checkpoint, test and prediction; every process of the run calls this.

    Trackers are left out: their settings have been looked at, and nothing is sent.

    Raises:
        InputError: as a run would.
    """
    console = open_console(quiet=not is_main_process())
    dry_run = DryRun()
    try:
        try_all(run_config, hardware_info, interruption, dry_run)
    finally:
        show(console, [dry_run.to_rich()])
    say(console, ["nothing was trained and nothing is kept; leave preflight=full out to train"])
    return Run(run_config.folder, results={})


def try_all(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption, dry_run: DryRun) -> None:
    """One thing after the other, each with its time."""
    trainer_settings = {**run_config.settings["trainer"], **ONE_BATCH}
    settings = {**run_config.settings, "trainer": trainer_settings, "logger": {}}
    with dry_run.step("data and net") as told:
        rehearsed = replace(run_config, settings=settings)
        parts = build_components(rehearsed, hardware_info, [], open_console(quiet=True), interruption=interruption)
        sizes = ", ".join(f"{size:,} {split}" for split, size in parts.data.sizes.items())
        told.append(f"{sizes}; {count_parameters(parts.module):,} parameters")
    trainer, watch = parts.trainer, Watch()
    trainer.limit_train_batches = trainer.accumulate_grad_batches  # one whole batch
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    with dry_run.step("train") as told:
        trainer.fit(parts.module, parts.data)
        told.append(f"{trainer.global_step} step, loss {watch.loss:.4f}")
    name, what, seconds = dry_run.rows.pop()
    score = f"{parts.module.monitor.metric} {float(trainer.callback_metrics[parts.module.monitor.metric]):.4f}"
    dry_run.rows += [(name, what, seconds - watch.validation_s), ("validate", score, watch.validation_s)]
    with dry_run.step("checkpoint") as told:
        restored = check_round_trip(parts, run_config.folder)
        size = sum(file.stat().st_size for file in last_checkpoint(run_config.folder).parent.rglob("*") if file.is_file())
        told.append(f"{size / 1e6:,.1f} MB saved, read with weights_only, the same weights")
    with dry_run.step("test") as told:
        trainer.test(parts.module, datamodule=parts.data, verbose=False)
        assert parts.module.scores is not None
        name = parts.module.monitor.metric.rpartition("/")[2]
        told.append(f"test/{name} {parts.module.scores.numbers[name]:.4f}")
    with dry_run.step("predict") as told:
        told.append(predict(parts, restored))


def check_round_trip(parts: RunComponents, folder: Path) -> SupervisedModule:
    """The task from its last checkpoint alone; its weights are those of the task that was saved."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(parts.module, options=options)  # of a net that is spread, every process asks
    restored = restore(last_checkpoint(folder)).module
    own = restored.state_dict()
    if is_main_process():
        different = [name for name, weight in weights.items() if not torch.equal(weight.cpu(), own[name])]
        assert not different, f"the checkpoint gives back other weights: {', '.join(different[:5])}"
    return restored


def predict(parts: RunComponents, restored: SupervisedModule) -> str:
    """What the restored net makes of a batch of the test split, in words."""
    batch = next(iter(parts.data.test_dataloader()))
    restored = restored.to(parts.trainer.strategy.root_device).eval()
    with torch.inference_mode():
        logits: Tensor = restored(*example_inputs(batch))
    assert torch.isfinite(logits).all(), "the restored net gives logits that are no numbers"
    return f"logits {tuple(logits.shape)} of the restored net, all finite"
