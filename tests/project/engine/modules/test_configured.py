"""Losses, metrics, freezing and nets of other packages by YAML alone (arclight.modules.configured_loss, configured_metrics)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import arclight
from arclight.checkpoint.contents import last_checkpoint, load_checkpoint, restore
from arclight.config.compose import compose
from arclight.errors import InputError
from arclight.hardware import HardwareInfo
from arclight.preflight.config_checks import check_config
from arclight.runs.evaluation import evaluate
from arclight.runs.run import Run
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

HERE = "tests.project.engine.modules.test_configured"
KAPPA = "{_target_: torchmetrics.CohenKappa, task: multiclass, num_classes: '${data_info:num_classes}'}"
F1 = "{_target_: torchmetrics.classification.MulticlassF1Score, num_classes: '${data_info:num_classes}', average: micro}"


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str) -> Run:
    return arclight.run(["precision=fp32", "trainer.max_epochs=2", *overrides])


def weights(run: Run) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(last_checkpoint(run.folder))["state_dict"]
    return state


def found(*overrides: str) -> list[str]:
    machine = HardwareInfo(num_cores=2, memory_bytes=2**34)
    return [str(error) for error in check_config(compose(list(overrides)).settings, machine)]


@pytest.mark.parametrize("overrides", [TINY_IMAGES, TINY_TEXT], ids=["images", "text"])
@pytest.mark.with_report
def test_a_loss_and_metrics_of_the_config(overrides: list[str]) -> None:
    plain = train(*overrides, "name=plain")
    run = train(
        *overrides,
        "name=configured",
        "module.loss={_target_: torch.nn.CrossEntropyLoss}",
        f"module.metrics={{kappa: {KAPPA}, micro_f1: {F1}}}",
    )
    for key in ("val/kappa", "test/kappa", "val/micro_f1", "test/micro_f1"):
        assert key not in plain.results
        assert -1 <= run.results[key] <= 1
    assert run.results["test/loss"] == pytest.approx(plain.results["test/loss"], rel=1e-4)
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(run)[name], weight, rtol=1e-3, atol=1e-5)
    if overrides is TINY_IMAGES:
        assert run.results["test/micro_f1"] == pytest.approx(run.results["test/accuracy"])
    assert "kappa" in (run.folder / "report.html").read_text()
    assert "val/kappa" in (run.folder / "metrics.csv").read_text()
    assert evaluate(str(run.folder), {}).metrics["kappa"] == pytest.approx(run.results["test/kappa"])


def test_the_default_loss_is_unchanged() -> None:
    """Without `module.loss`, training and evaluation call cross_entropy as they always have."""
    module = restore(train(*TINY_IMAGES, "module.label_smoothing=0.1").folder).module
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    for is_training in (True, False):
        module.train(is_training)
        for reduction in ("mean", "sum"):
            smoothing = 0.1 if is_training else 0.0
            expected = nn.functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=smoothing)
            assert torch.equal(module.loss(logits, labels, reduction), expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("module.loss={_target_: torch.nn.CrossEntropyLoss, label_smothing: 0.1}", "Did you mean 'label_smoothing'"),
        ("module.loss={_target_: torch.nn.functional.cross_entropy}", "add module.loss._partial_=true"),
        ("module.loss=focal", "module.loss='focal' must be"),
        ("module.metrics=[accuracy]", "module.metrics=['accuracy'] must be"),
        ("module.metrics=[{_target_: torchmetrics.CohenKapa, task: multiclass}]", "names nothing that can be imported"),
        (f"module.metrics={{accuracy: {KAPPA}}}", "the module logs accuracy itself"),
        (
            "module.metrics=[{_target_: torchmetrics.CohenKappa, task: multiclas}]",
            "raised ValueError: Invalid Classification",
        ),
        ("module.freeze=stem", "module.freeze='stem' must be a list"),
    ],
)
def test_wrong_settings_are_found_before_data_are_loaded(override: str, message: str) -> None:
    messages = found(*TINY_IMAGES, override)
    assert any(message in text for text in messages), messages


def test_a_loss_and_label_smoothing_exclude_each_other() -> None:
    (message,) = found(*TINY_IMAGES, "module.loss={_target_: torch.nn.CrossEntropyLoss}", "module.label_smoothing=0.1")
    assert message == "module.label_smoothing=0.1 is of the default loss; give it to module.loss instead"


def test_the_metrics_of_the_config_can_be_monitored() -> None:
    metrics = f"module.metrics={{kappa: {KAPPA}}}"
    assert not found(*TINY_IMAGES, metrics, "callbacks=early_stopping", "+callbacks.early_stopping.monitor=val/kappa")
    run = train(*TINY_IMAGES, metrics, "monitor=val/kappa", "monitor_mode=max")
    assert run.results["monitor"] == "val/kappa"


def test_frozen_parameters_keep_their_weights() -> None:
    one, two = (
        train(*TINY_IMAGES, f"trainer.max_epochs={epochs}", f"name=after_{epochs}", "module.freeze=[blocks.0]")
        for epochs in (1, 2)
    )
    same = {name for name, weight in weights(one).items() if torch.equal(weight, weights(two)[name])}
    frozen = {name for name in weights(one) if name.startswith("net.blocks.0.") and name.endswith((".weight", ".bias"))}
    assert frozen
    assert frozen <= same
    assert len(same) < len(weights(one))
    assert one.results["parameters"] < sum(weight.numel() for weight in weights(one).values())


class OtherNet(nn.Module):
    """A net of another package, as timm's: it takes numbers and knows what it was pretrained with."""

    def __init__(self, model_name: str, num_classes: int, in_chans: int = 3, pretrained: bool = False) -> None:
        super().__init__()
        OtherNet.built.append(pretrained)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3)[:in_chans], "std": (0.2, 0.2, 0.1)[:in_chans], "name": model_name}
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_chans, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits

    built: list[bool] = []  # noqa: RUF012 - of this test alone


def test_a_net_that_does_not_know_us_trains_and_is_restored_without_its_pretrained_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OtherNet, "built", [])
    net = [f"model._target_={HERE}.OtherNet", "~model.width", "+model.model_name=x", "+model.pretrained=true"]
    run = train(*TINY_IMAGES[:-1], "model=resnet18", "module.normalization=net", *net, "+model.in_chans=${data_info:channels}")
    assert run.status == "finished"
    assert OtherNet.built == [True]
    restored = restore(run.folder).module
    assert OtherNet.built == [True, False]
    images = torch.full((1, 3, 4, 4), 51, dtype=torch.uint8)  # 0.2
    torch.testing.assert_close(restored.normalize(images)[0, :, 0, 0], torch.tensor([-1.5, -1.0, -1.0]))


def test_normalization_of_a_net_without_one_is_an_error() -> None:
    with pytest.raises(InputError, match="module.normalization=net: Cnn has no mean and std for 3 channels"):
        train(*TINY_IMAGES, "module.normalization=net")


@pytest.mark.processes
def test_metrics_are_exact_over_processes() -> None:
    metrics: Any = ["data.num_test=33", "data.num_val=17", f"module.metrics={{kappa: {KAPPA}, f1: {F1}}}"]
    one = train(*TINY_IMAGES, *metrics, "name=one")
    two = train(*TINY_IMAGES, *metrics, "name=two", "strategy=ddp_cpu", "trainer.devices=2")
    results = json.loads((two.folder / "results.json").read_text())
    assert results["test/f1"] == pytest.approx(results["test/accuracy"])
    assert results["test/kappa"] == pytest.approx(one.results["test/kappa"], abs=0.1)
