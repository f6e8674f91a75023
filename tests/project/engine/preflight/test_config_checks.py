"""What is wrong inside of a config, before any of it is built; tests/end_to_end/test_wrong_inputs.py has the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arclight.config.compose import compose
from arclight.config.locations import CONF
from arclight.hardware import Gpu, HardwareInfo
from arclight.interfaces import PreflightContext
from arclight.preflight.config_checks import check_config, info_type_of, metrics_of
from tests.project.conf.test_every_option import NEEDED
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

CPU = HardwareInfo(num_cores=2, memory_bytes=2**34)
GPUS = replace(CPU, gpus=(Gpu("V100", 16 * 10**9, (7, 0)),) * 2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(*overrides: str, hardware_info: HardwareInfo = CPU) -> list[str]:
    return [str(error) for error in check_config(compose(list(overrides)).settings, hardware_info)]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_recipe_is_right(recipe: str) -> None:
    assert found(f"experiment={recipe}") == []


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "callbacks", "logger"])
def test_every_option_is_right(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        data = ["data=synthetic_text"] if path.stem == "bert_tagger" else ["data=synthetic_images"]
        needed = NEEDED.get((group, path.stem), [])
        assert found(*data, f"{group}={path.stem}", *needed) == [], path


def test_scores_have_the_names_that_the_task_logs() -> None:
    names = []
    for overrides in (TINY_IMAGES, TINY_TEXT):
        settings = compose(overrides).settings
        info_type = info_type_of(settings, "module")
        assert info_type is not None
        names.append(metrics_of(PreflightContext(config=settings, data_info=info_type.stand_in())))
    assert names[0] == ["val/loss", "val/accuracy"]
    assert {"val/f1", "val/f1_strict", "val/accuracy"} <= set(names[1])


def test_settings_that_the_machine_does_not_have_are_all_reported() -> None:
    messages = found(*TINY_IMAGES, "precision=fp16", "hardware.threads=0", "hardware.workers=x")
    assert [message.partition("=")[0] for message in messages] == ["trainer.precision", "hardware.threads", "hardware.workers"]


def test_a_fused_update_does_not_clip_under_a_scaler() -> None:
    overrides = [*TINY_IMAGES, "precision=fp16", "+optimizer.fused=true", "trainer.gradient_clip_val=1"]
    (message,) = found(*overrides, hardware_info=GPUS)
    assert message.startswith("optimizer.fused=true excludes trainer.gradient_clip_val=1")
    assert found(*overrides[:-1], hardware_info=GPUS) == []


def test_a_net_without_layers_has_no_decay_by_layers() -> None:
    settings = compose(TINY_TEXT).settings
    settings["module"]["layer_decay"] = 0.9
    assert check_config(settings, CPU) == []
    settings["model"]["_target_"] = "torch.nn.Linear"
    assert any("net with numbered layers; Linear has none" in str(error) for error in check_config(settings, CPU))


def test_a_net_is_looked_at_without_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = set()
    real = torch.nn.Conv2d.__init__

    def watch(self: torch.nn.Conv2d, *given: object, **named: object) -> None:
        real(self, *given, **named)  # type: ignore[arg-type]
        devices.add(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Conv2d, "__init__", watch)
    assert found(*TINY_IMAGES) == []
    assert devices == {"meta"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*TINY_TEXT, "model.checkpoint=./nowhere"], r"model.checkpoint=./nowhere: no such directory"),
        ([*TINY_TEXT, "model.checkpoint=pictures"], "model.checkpoint=pictures: config.json and model.safetensors missing"),
        ([*TINY_TEXT, "data.tokenizer=pictures"], "data.tokenizer=pictures: tokenizer.json missing"),
    ],
)
def test_a_directory_of_an_encoder_or_a_tokenizer(overrides: list[str], message: str) -> None:
    Path("pictures").mkdir()
    assert any(message in each for each in found(*overrides))


def test_a_name_on_the_hub_is_not_a_directory(bert_folder: Path) -> None:
    assert found("experiment=conll2003_bert") == []
    assert found(*TINY_TEXT, f"model.checkpoint={bert_folder}") == []


def test_what_a_class_checks_itself_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def preflight(cls: type, settings: dict[str, object], context: PreflightContext) -> list[str]:
        return [f"widths {settings['widths']} on {context.decisions['accelerator'].value}"]

    monkeypatch.setattr("project.models.cnn.Cnn.preflight", classmethod(preflight), raising=False)
    assert found(*TINY_IMAGES) == [f"widths {compose(TINY_IMAGES).settings['model']['widths']} on cpu"]
