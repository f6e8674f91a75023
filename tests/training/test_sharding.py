"""Two processes that share a net train as one does, and their checkpoint folders are whole or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.distributed.tensor import DTensor

from arclight.build import build
from arclight.checkpoint import CheckpointContents, build_task
from arclight.config import compose
from arclight.training.callbacks import build_callbacks, checkpoint_callbacks
from arclight.training.sharding import ShardedStrategy


class EveryEpoch(Callback):
    """Keeps `0.ckpt` and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


def whole(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
        for name, tensor in tensors.items()
    }


def train(
    overrides: list[str], folder: Path, *, world_size: int, resume: Path | None = None, test: bool = True
) -> dict[str, Any]:
    """What a run as of `arclight.run` ends with, under fsdp unless it is one process."""
    composed = compose(overrides)
    settings = composed.settings
    seed_everything(settings["seed"], verbose=False)
    data = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    task = build_task(settings, data.spec)
    callbacks = [
        CheckpointContents(settings, composed.data, composed.model),
        *checkpoint_callbacks(folder, task.monitor),
        EveryEpoch(folder),
        *build_callbacks(settings["callbacks"], task.monitor),
    ]
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=ShardedStrategy() if world_size > 1 else "auto",
        precision=settings["trainer"]["precision"],
        max_epochs=2,
        gradient_clip_val=settings["trainer"]["gradient_clip_val"],
        accumulate_grad_batches=settings["trainer"]["accumulate_grad_batches"] or 1,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    (optimizer,) = trainer.optimizers
    state = {
        f"{number}/{key}": value for number, states in optimizer.state_dict()["state"].items() for key, value in states.items()
    }
    found = {"weights": whole(task.state_dict()), "optimizer": whole(state)}
    if test:
        trainer.test(task, datamodule=data, ckpt_path=folder / "best.ckpt", verbose=False, weights_only=True)
        found |= {"counts": task.scores.counts, "numbers": task.scores.numbers, "best": whole(task.state_dict())}
    return found
