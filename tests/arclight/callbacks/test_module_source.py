"""A module whose code has changed since the checkpoint gets a warning."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.callbacks import module_source
from arclight.callbacks.module_source import ModuleSource, source_of, sources_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.layer(inputs))


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


class FakeTrainer:
    is_global_zero = True


def test_the_classes_of_libraries_are_left_out() -> None:
    assert list(sources_of(Module())) == [f"{__name__}.Module", f"{__name__}.Net"]


def test_changed_code_is_reported_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    callback, module, trainer = ModuleSource(), Module(), FakeTrainer()
    checkpoint: dict[str, Any] = {}
    callback.on_save_checkpoint(trainer, module, checkpoint)  # type: ignore[arg-type]
    callback.on_load_checkpoint(trainer, module, checkpoint)  # type: ignore[arg-type]
    callback.on_load_checkpoint(trainer, module, {})  # type: ignore[arg-type]  # of an older version
    assert not caplog.records
    getsource = module_source.inspect.getsource
    monkeypatch.setattr(module_source.inspect, "getsource", lambda cls: getsource(cls).replace("relu", "tanh"))
    monkeypatch.setattr(module_source, "source_of", functools.cache(source_of.__wrapped__))
    callback.on_load_checkpoint(trainer, module, checkpoint)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the source of {__name__}.Net has changed since this run saved its checkpoint")
