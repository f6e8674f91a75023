"""What is wrong inside of a config, before any of it is built; tests/end_to_end/test_wrong_inputs.py has the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arclight.config.compose import compose
from arclight.config.locations import CONF
from arclight.hardware import Gpu, HardwareInfo
from arclight.preflight.config_checks import check_config, scores_of
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

CPU = HardwareInfo(num_cores=2, memory_bytes=2**34)
GPUS = replace(CPU, gpus=(Gpu("V100", 16 * 10**9, (7, 0)),) * 2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(*overrides: str, hardware_info: HardwareInfo = CPU) -> list[str]:
    return check_config(compose(list(overrides)).settings, hardware_info)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_recipe_is_right(recipe: str) -> None:
    assert found(f"experiment={recipe}") == []


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "callbacks", "logger"])
def test_every_option_is_right(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        data = ["data=synthetic_text"] if path.stem == "bert_tagger" else ["data=synthetic_images"]
        assert found(*data, f"{group}={path.stem}") == [], path


def test_scores_have_the_names_that_the_task_logs() -> None:
    assert scores_of(compose(TINY_IMAGES).settings) == ["val/loss", "val/accuracy"]
    assert {"val/f1", "val/f1_strict", "val/accuracy"} <= set(scores_of(compose(TINY_TEXT).settings))


def test_wishes_that_the_machine_lacks_are_all_told() -> None:
    told = found(*TINY_IMAGES, "precision=fp16", "hardware.threads=0", "hardware.workers=x")
    assert [message.partition("=")[0] for message in told] == ["trainer.precision", "hardware.threads", "hardware.workers"]


def test_a_fused_update_does_not_clip_under_a_scaler() -> None:
    overrides = [*TINY_IMAGES, "precision=fp16", "+optimizer.fused=true", "trainer.gradient_clip_val=1"]
    (told,) = found(*overrides, hardware_info=GPUS)
    assert told.startswith("optimizer.fused=true does not go with trainer.gradient_clip_val=1")
    assert found(*overrides[:-1], hardware_info=GPUS) == []


def test_a_net_without_layers_has_no_decay_by_layers() -> None:
    settings = compose(TINY_TEXT).settings
    settings["module"]["layer_decay"] = 0.9
    assert check_config(settings, CPU) == []
    settings["model"]["_target_"] = "torch.nn.Linear"
    assert any("needs a net with numbered layers; Linear has none" in told for told in check_config(settings, CPU))


def test_a_net_is_looked_at_without_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = set()
    real = torch.nn.Conv2d.__init__

    def watch(self: torch.nn.Conv2d, *given: object, **named: object) -> None:
        real(self, *given, **named)  # type: ignore[arg-type]
        devices.add(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Conv2d, "__init__", watch)
    assert found(*TINY_IMAGES) == []
    assert devices == {"meta"}
