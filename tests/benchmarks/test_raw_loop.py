"""The bare loop takes the same steps as training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import arclight
from arclight import hardware
from arclight.benchmark.training_step import compose, loss_of
from arclight.checkpoint.contents import build_module
from arclight.config.hardware_plan import plan_hardware
from arclight.runs import build
from benchmarks import raw_loop
from benchmarks.tasks import batches
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT


@pytest.mark.parametrize(("overrides", "names"), [(TINY_IMAGES, 2), (TINY_TEXT, 3)])
def test_it_measures_so_many_steps(overrides: list[str], names: int) -> None:
    numbers = raw_loop.run(3, [*overrides, "trainer.gradient_clip_val=1.0"])
    assert len(numbers) == names
    assert all(value > 0 for value in numbers.values())


def test_its_steps_are_those_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [*TINY_IMAGES, "precision=fp32"]
    trained = arclight.run([*overrides, "trainer.max_epochs=2"]).model
    settings = compose(overrides)
    torch.manual_seed(0)
    data = build.build_data(settings, workers=1)
    data.prepare_data()
    data.setup("fit")
    assert data.data_info is not None
    from lightning.pytorch import seed_everything

    seed_everything(settings["seed"], verbose=False)
    module = build_module(
        settings, data.data_info, channels_last=bool(plan_hardware(settings, hardware.probe())["channels_last"].value)
    )
    optimizer = raw_loop.make_optimizer(module)
    for batch in batches(data, 8, torch.device("cpu")):
        loss_of(module, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    last = torch.load(next(Path("outputs").glob("*/*/checkpoints/last.ckpt")), weights_only=True)["state_dict"]
    del trained
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(last[name], weight, rtol=1e-5, atol=1e-6)
