"""CifarNet, Muon and alternating flips in a whole run, which ends in the same weights when it is stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight.callbacks.throughput import Throughput
from arclight.runs.run import Run
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

pytestmark = pytest.mark.processes

FAST = [
    *TINY_IMAGES,
    *["model=cifarnet", "model.widths=[8,8]", "model.convolutions=1", "optimizer=muon", "callbacks=none", "precision=fp32"],
    *["data.augment.flip=alternating", "data.augment.crop=1", "module.test_time_augmentation=flip_and_shift"],
    *["scheduler=warmup_linear", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4"],
]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def weights(run: Run) -> dict[str, Any]:
    return {**dict(run.model.net.named_parameters()), **dict(run.model.net.named_buffers())}


def test_a_resumed_run_equals_one_that_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arclight.run(FAST)
    real = Throughput.on_train_batch_start

    def fail(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        real(self, trainer, module, batch, batch_idx)
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Throughput, "on_train_batch_start", fail)
        with pytest.raises(ZeroDivisionError):
            arclight.run(FAST)
    again = arclight.run([*FAST, "resume=auto"])
    assert len(list(Path("outputs").glob("*/*"))) == 2
    for name, weight in weights(whole).items():
        assert torch.equal(weights(again)[name], weight), name
    assert again.results["test/accuracy"] == whole.results["test/accuracy"]
    assert weights(whole)["whiten.weight"].abs().sum() > 0
