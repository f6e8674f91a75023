"""The training loss that is logged, and its running sum in a checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from arclight.callbacks.loss_logging import LossLogging
from arclight.callbacks.throughput import Throughput
from tests.arclight.callbacks.test_best_checkpoint import fit


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_logged_loss_is_the_mean_since_the_last_time(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    logger = CSVLogger(tmp_path / "logs", name="", version="")
    fit(
        tmp_path,
        [0.1, 0.2],
        throughput,
        LossLogging(throughput),
        enable_checkpointing=False,
        logger=logger,
        log_every_n_steps=3,
    )
    rows = [row for row in csv.DictReader((tmp_path / "logs" / "metrics.csv").read_text().splitlines()) if row["train/loss"]]
    # the weight, and so the loss, is 0, -1, -2, -3 before the four steps
    assert [(row["step"], float(row["train/loss"])) for row in rows] == [("3", -1.0), ("4", -3.0)]


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_loss_of_an_epoch_is_the_mean_of_its_own_steps(tmp_path: Path) -> None:
    """Whenever losses are logged: here after three steps, with two steps in an epoch."""
    losses = LossLogging(Throughput(0.0))
    means: list[float | None] = []

    class Listen(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            means.append(losses.epoch_loss)

    fit(tmp_path, [0.1, 0.2], losses.throughput, losses, Listen(), enable_checkpointing=False, log_every_n_steps=3)
    assert means == [-0.5, -2.5]  # of 0 and -1, of -2 and -3


def test_each_process_resumes_its_own_sum_of_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes whose losses since the last log add up to 3 and 5; the first one writes the checkpoint."""

    def all_gather(sums: list[torch.Tensor], own: torch.Tensor) -> None:
        assert own.tolist() == [3.0, 7.0]
        for place, value in zip(sums, (3.0, 5.0), strict=True):
            place.copy_(torch.tensor([value, 7.0]))

    first = LossLogging(Throughput(0.0))
    empty = {"loss_sums": torch.zeros(1), "num_losses": 0, "epoch_sums": torch.zeros(1), "num_in_epoch": 0}
    assert first.state_dict() == empty
    first._loss_sum, first._num_losses = torch.tensor(3.0), 2
    first._epoch_sum, first._num_in_epoch = torch.tensor(7.0), 3
    filled = {"loss_sums": torch.tensor([3.0]), "num_losses": 2, "epoch_sums": torch.tensor([7.0]), "num_in_epoch": 3}
    assert first.state_dict() == filled
    restored = LossLogging(Throughput(0.0))
    restored.load_state_dict(filled)
    assert restored.state_dict() == filled
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    for size, expected in ((2, [3.0, 5.0]), (4, [4.0] * 4), (1, [4.0])):
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda size=size: size)
        for rank, value in enumerate(expected):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            again = LossLogging(Throughput(0.0))
            again.load_state_dict({"loss_sums": torch.tensor([3.0, 5.0]), "num_losses": 2})
            assert (float(again._loss_sum), again._num_losses) == (value, 2)  # type: ignore[arg-type]
        if size == 2:
            assert first.state_dict()["loss_sums"].tolist() == [3.0, 5.0]


def test_a_loss_that_is_not_finite_is_a_warning_at_once(caplog: pytest.LogCaptureFixture) -> None:
    logging = LossLogging(Throughput(0.0))
    for step, loss in ((50, 1.0), (100, float("nan")), (150, float("inf")), (200, 2.0), (250, float("nan"))):
        logging.last_loss = loss
        logging._warn_unless_finite(loss, step)
    warned = [record.getMessage().partition(".")[0] for record in caplog.records]
    assert warned == ["train/loss is nan from step 100 on", "train/loss is nan from step 250 on"]
    assert logging.divergence == "train/loss is nan from step 250 on"
    logging.last_loss = 0.5
    assert logging.divergence is None
