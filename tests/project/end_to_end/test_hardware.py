"""The hardware plan in a whole run: it reaches net, torch and the run summary; what the machine cannot do is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight import hardware
from arclight.errors import InputError
from arclight.modules import supervised
from arclight.runs import build, evaluation
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

SHORT = [*TINY_IMAGES, "trainer.max_epochs=1"]
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@WITHOUT_GPU
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["precision=tf32"], "hardware.matmul_precision=high: TF32 needs an NVIDIA Ampere or newer GPU"),
        (["precision=fp16"], "trainer.precision=16-mixed: CPUs do not train in fp16"),
        (["trainer.devices=999999"], "trainer.devices=999999: too many processes for .* cores"),
        (["trainer.sync_batchnorm=true"], "trainer.sync_batchnorm=true needs NVIDIA GPUs"),
        (["hardware.threads=0"], "hardware.threads=0 must be a whole number of 1 or more, or auto"),
        (["module.lr_rule=linear"], "module.lr_rule=linear needs module.lr_batch_size"),
        (["module.lr_rule=cubic"], "module.lr_rule='cubic' must be none or linear or sqrt"),
        (
            ["+module.channels_last=true"],
            "module.channels_last is set by the hardware plan; set hardware.channels_last",
        ),
    ],
)
def test_an_unavailable_setting_is_refused_and_leaves_nothing_behind(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arclight.run([*SHORT, *overrides])
    assert not list(Path().glob("outputs/*/*"))


@WITHOUT_GPU
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_plan_sets_the_memory_format(channels_last: bool) -> None:
    run = arclight.run([*SHORT, "precision=fp32", *([] if channels_last else ["hardware.channels_last=false"])])
    format_ = torch.channels_last if channels_last else torch.contiguous_format
    assert getattr(run.model, "memory_format", None) is format_


def test_compile_compiles_net_and_loss_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    calls: list[bool] = []

    def compile_(function: Any, mode: str) -> Any:
        def call(*given: Any) -> Any:
            calls.append(torch.is_grad_enabled())
            return function(*given)

        modes.append(mode)
        return call

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr("arclight.hardware.hardware_info.has_compiler", lambda environment: True)
    plain, compiled = (arclight.run([*SHORT, "precision=fp32", f"hardware.compile={mode}"]) for mode in ("false", "true"))
    assert modes == ["default"]
    steps = plain.results["steps"]
    assert len(calls) == steps + 1  # tried out before, and not a call in validation and test
    assert all(calls)
    found, expected = compiled.model.net.state_dict(), plain.model.net.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_the_learning_rate_follows_the_batch_and_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates: list[set[float]] = []
    real = supervised.configure

    def watch(*given: Any, **settings: Any) -> Any:
        made = real(*given, **settings)
        rates.append({group["initial_lr"] for group in made["optimizer"].param_groups})
        return made

    monkeypatch.setattr(supervised, "configure", watch)
    parts = "data.max_batch_per_device=8"  # the global batch counts, not its parts
    rule = ["module.lr_rule=linear", "module.lr_batch_size=4", "optimizer.lr=1e-3"]
    arclight.run([*SHORT, "precision=fp32", parts, *rule])
    assert "0.004 (0.001 x 4, linear: batch 16, chosen for 4)" in capsys.readouterr().out
    assert rates == [{0.004}]


def test_the_plan_sets_the_number_of_decoding_threads(tmp_path: Path) -> None:
    images = {"_target_": "project.data.image_folder.ImageFolder", "root": str(tmp_path)}
    for own, expected in (({}, 3), ({"num_workers": None}, 3), ({"num_workers": 2}, 2)):
        data = build.build_data({"seed": 0, "data": images | own}, workers=3)
        assert vars(data)["num_workers"] == expected


@WITHOUT_GPU
def test_a_run_from_another_machine_can_be_evaluated(caplog: pytest.LogCaptureFixture) -> None:
    run = arclight.run([*SHORT, "precision=fp32"])
    best = run.folder / "checkpoints" / "best.ckpt"
    contents = torch.load(best, weights_only=True)
    contents["arclight"]["settings"]["trainer"]["accelerator"] = "cuda"
    torch.save(contents, best)
    scores = evaluation.evaluate(str(run.folder), {})
    assert scores.metrics["accuracy"] == run.results["test/accuracy"]
    assert "torch finds no GPU on this machine. Try: trainer=cpu; used with what this machine has" in caplog.text


def test_problems_of_the_machine_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> hardware.HardwareInfo:
        return replace(real(), problems=("the driver is too old",))

    real = hardware.probe
    monkeypatch.setattr(hardware, "probe", probe)
    run = arclight.run([*SHORT, "precision=fp32"])
    assert "WARNING arclight.runs.experiment: the driver is too old" in (run.folder / "train.log").read_text()
