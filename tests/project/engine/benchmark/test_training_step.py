"""The measured step is a real one: real module, real batch, every weight updated, its FLOPs counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from arclight.benchmark import training_step
from arclight.benchmark.training_step import Backend, TrainingStep, make_sample, with_defaults
from arclight.errors import InputError

CPU = torch.device("cpu")
TINY_IMAGES = ["model=small_cnn", "data=synthetic_images", "data.num_train=16", "data.num_val=1", "data.batch_size=4"]
TINY_TEXT = [
    *(
        "model=bert_tagger",
        "data=synthetic_text",
        "model.checkpoint=null",
        "model.num_hidden_layers=1",
        "model.hidden_size=16",
        "model.num_attention_heads=2",
    ),
    *("data.num_train=40", "data.num_val=4", "data.num_test=4", "data.batch_size=4"),
]


def test_flops_of_a_net_counted_by_hand() -> None:
    sample = make_sample(TINY_IMAGES)
    convolutions = 32 * 32 * 16 * 27 + 16 * 16 * 32 * 144
    linear = 32 * 8 * 8 * 8
    first = 32 * 32 * 16 * 27  # no gradient for the images
    assert sample.flops == 4 * 2 * (3 * (convolutions + linear) - first)
    assert sample.work == (4, 0, 0)


def test_padding_counts_as_no_work() -> None:
    sample = make_sample(TINY_TEXT)
    assert sample.work.samples == 4
    assert 0 < sample.work.tokens < sample.work.positions
    assert sample.flops > 0


@pytest.mark.parametrize("overrides", [TINY_IMAGES, TINY_TEXT])
@pytest.mark.parametrize("backend", [Backend(), Backend(precision="bf16", channels_last=True), Backend(precision="fp16")])
def test_a_step_changes_every_weight(overrides: list[str], backend: Backend) -> None:
    step = TrainingStep(make_sample(overrides), backend, CPU)
    before = [parameter.detach().clone() for parameter in step.module.net.parameters()]
    step()
    changed = [not torch.equal(old, new) for old, new in zip(before, step.module.net.parameters(), strict=True)]
    # a bias of the keys does not change attention, and the pooler of a random encoder is not used
    assert sum(changed) >= 0.8 * len(changed)
    assert step.optimizer.defaults["fused"] is (None if backend.precision == "fp16" else True)
    filters = next(p for p in step.module.net.parameters() if p.ndim == 4) if overrides is TINY_IMAGES else None
    if filters is not None:
        assert filters.is_contiguous(memory_format=torch.channels_last) is backend.channels_last


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(InputError, match="data.batch_size=64 is larger than the training split"):
        make_sample([*TINY_IMAGES[:-1], "data.batch_size=64"])


def test_overrides_replace_defaults() -> None:
    defaults = {"data": "synthetic_images", "data.num_train": "9", "model": "cnn", "optimizer.lr": "0"}
    assert with_defaults(["data=cifar10"], defaults) == ["model=cnn", "optimizer.lr=0", "data=cifar10"]
    assert with_defaults(["++data.num_train=3"], defaults) == [
        "data=synthetic_images",
        "model=cnn",
        "optimizer.lr=0",
        "++data.num_train=3",
    ]


def test_a_frozen_step_changes_no_weight() -> None:
    step = TrainingStep(make_sample(TINY_IMAGES), Backend(), CPU, is_frozen=True)
    before = [parameter.detach().clone() for parameter in step.module.net.parameters()]
    step()
    assert all(torch.equal(old, new) for old, new in zip(before, step.module.net.parameters(), strict=True))


def boring_settings(**module: Any) -> dict[str, Any]:
    """Returns a config of a LightningModule and a data module that do not know the engine."""
    target = "lightning.pytorch.demos.boring_classes."
    return {
        "seed": 0,
        "model": {"_target_": f"{target}BoringModel"},
        "data": {"_target_": f"{target}BoringDataModule"},
        **module,
    }


def test_any_module_with_one_optimizer_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step, "compose", lambda overrides: boring_settings())
    sample = make_sample([])
    assert sample.work == (1, 0, 0)
    assert sample.flops == 2 * 2 * 32 * 2  # forward, and the gradient of the weights
    step = TrainingStep(sample, Backend(precision="bf16"), CPU)
    before = step.module.layer.weight.detach().clone()
    step()
    assert not torch.equal(before, step.module.layer.weight)
    with pytest.raises(InputError, match="takes modules with one optimizer.*, and TwoOptimizers has others"):
        TrainingStep(replace(sample, settings=boring_settings(model={"_target_": f"{__name__}.TwoOptimizers"})), Backend(), CPU)
    with pytest.raises(InputError, match="configure_optimizers of AsksTheTrainer: AsksTheTrainer is not attached"):
        TrainingStep(
            replace(sample, settings=boring_settings(model={"_target_": f"{__name__}.AsksTheTrainer"})), Backend(), CPU
        )
    monkeypatch.setattr(training_step, "compose", lambda overrides: boring_settings(data={}))
    with pytest.raises(InputError, match="name one with data="):
        make_sample([])


class TwoOptimizers(BoringModel):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters()), torch.optim.SGD(self.parameters())], []


class AsksTheTrainer(BoringModel):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1 / self.trainer.max_epochs)
