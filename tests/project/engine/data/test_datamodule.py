from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from arclight.data.datamodule import DataModule
from arclight.data.samplers import Shard
from arclight.errors import InputError
from arclight.images.augment import Augment
from arclight.images.info import ImageBatch
from project.data.synthetic_images import SyntheticImages
from project.data.synthetic_text import SyntheticText


class Diary(DataModule):
    """Ten samples, and notes of what was asked for."""

    def __init__(self, *, root: str | None = None, batch_size: int = 4, max_batch_per_device: int | None = None) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device)
        self.notes: list[str] = []

    def prepare(self) -> None:
        self.notes.append("prepare")

    def load(self, part: str) -> None:
        self.notes.append(part)

    @property
    def num_train(self) -> int:
        return 10

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": 10}

    def train_dataloader(self) -> Iterable[Any]:
        return []

    def val_dataloader(self) -> Iterable[Any]:
        return []

    def test_dataloader(self) -> Iterable[Any]:
        return []


def in_process(rank: int, world_size: int, accumulation: int) -> Diary:
    data = Diary()
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulation,
        strategy=SimpleNamespace(root_device=torch.device("meta")),
    )
    return data


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_an_error(batch_size: int) -> None:
    with pytest.raises(InputError, match=rf"data\.batch_size={batch_size} must be 1 or more"):
        Diary(batch_size=batch_size)
    with pytest.raises(InputError, match=rf"data\.max_batch_per_device={batch_size} must be 1 or more"):
        Diary(max_batch_per_device=batch_size)


def test_root_may_begin_with_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert Diary(root="~/data").root == Path("/home/someone/data")
    assert Diary().root is None


def test_data_is_prepared_and_each_part_loaded_once() -> None:
    data = Diary()
    for _ in range(2):
        data.prepare_data()
        data.setup("fit")
        data.setup("validate")
    assert data.notes == ["prepare", "fit"]
    data.setup("test")
    data.setup("test")
    data.setup("predict")
    assert data.notes == ["prepare", "fit", "test"]


@pytest.mark.parametrize("stage", ["fit", "validate", "predict"])
def test_only_testing_loads_the_test_split(stage: str) -> None:
    data = Diary()
    data.setup(stage)
    assert data.notes == ["fit"]


def test_the_last_incomplete_batch_is_no_step() -> None:
    assert Diary(batch_size=4).steps_per_epoch == 2
    assert Diary(batch_size=5).steps_per_epoch == 2


def test_without_a_trainer_one_process_has_all_on_the_cpu() -> None:
    data = Diary()
    assert (data.shard, data.eval_shard, data.device) == (Shard(0, 1, 1), Shard(0, 1, 1), torch.device("cpu"))


def test_the_trainer_gives_the_shard_and_the_device() -> None:
    data = in_process(2, 4, 3)
    assert data.shard == Shard(2, 4, 3)
    assert data.eval_shard == Shard(2, 4, 1)  # nothing is accumulated in evaluation
    assert data.device == torch.device("meta")


def test_batches_of_any_loader_are_moved_to_the_device_and_those_of_the_toolkits_are_there_already() -> None:
    batch = torch.zeros(2)
    assert Diary().transfer_batch_to_device(batch, torch.device("meta"), 0).device.type == "meta"
    assert SyntheticImages().transfer_batch_to_device(batch, torch.device("meta"), 0) is batch
    assert SyntheticText().transfer_batch_to_device(batch, torch.device("meta"), 0) is batch


class Witness(LightningModule):
    """Notes epoch, rows and pixels of each part that it is trained on; saves after `save_after` of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.seen: list[tuple[int, list[int], int]] = []

    def training_step(self, batch: ImageBatch, index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.indices.tolist(), int(batch.images.sum())))
        return (self.weight * batch.images.float().mean((0, 2, 3))).sum()

    def validation_step(self, batch: ImageBatch, index: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4)


class Save(Callback):
    def __init__(self, after: int, path: Path) -> None:
        self.after, self.path = after, path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(pl_module.seen) == self.after:
            trainer.save_checkpoint(self.path)


def fit(accumulation: int, *, save: Save | None = None, resume: Path | None = None, limit: int | float = 1.0) -> Witness:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_epochs": 2, "accumulate_grad_batches": accumulation, "limit_train_batches": limit}
    trainer = Trainer(accelerator="cpu", callbacks=save, **settings, **quiet)
    model = Witness()
    data = SyntheticImages(
        num_train=50, num_val=2, num_test=2, image_size=16, batch_size=12, augment=Augment(crop=2, flip=True)
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return model


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # lightning 2.6 with torch 2.13
@pytest.mark.parametrize(("accumulation", "after"), [(1, 1), (1, 3), (1, 4), (1, 6), (2, 2), (2, 10)])
def test_a_resumed_fit_takes_the_batches_that_the_uninterrupted_one_takes(
    tmp_path: Path, accumulation: int, after: int
) -> None:
    whole = fit(accumulation, save=Save(after, tmp_path / "saved.ckpt"))
    parts = 4 * accumulation
    assert [epoch for epoch, _, _ in whole.seen] == [0] * parts + [1] * parts
    assert [rows for _, rows, _ in whole.seen[:parts]] != [rows for _, rows, _ in whole.seen[parts:]]
    resumed = fit(accumulation, resume=tmp_path / "saved.ckpt")
    assert resumed.seen == whole.seen[after:]
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # lightning 2.6 with torch 2.13
@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_epoch_cut_short_by_a_limit_does_not_shift_the_next(tmp_path: Path, after: int) -> None:
    whole = fit(1, save=Save(after, tmp_path / "saved.ckpt"), limit=2)
    resumed = fit(1, resume=tmp_path / "saved.ckpt", limit=2)
    assert resumed.seen == whole.seen[after:]


def test_a_negative_seed_is_reported() -> None:
    with pytest.raises(InputError, match="seed=-1 must be 0 or more"):
        SyntheticImages(num_train=8, batch_size=4, seed=-1)
