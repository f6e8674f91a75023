"""Parameters that are trained from a later epoch on (arclight.callbacks.unfreeze)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from arclight.callbacks.unfreeze import Unfreeze
from arclight.errors import InputError
from arclight.testing import ModuleSuite
from arclight.testing.module_suite import weights_of
from tests.arclight.conftest import MakeConf
from tests.arclight.testing.test_any_module import OPTIONS

UNFREEZE = (
    "+callbacks.unfreeze._target_=arclight.callbacks.unfreeze.Unfreeze",
    "+callbacks.unfreeze.patterns=[layers.1,layers.2.*]",
)


class TestUnfreeze(ModuleSuite):
    overrides: ClassVar[Any] = (
        *("model=classifier", "data=images", "trainer.max_epochs=2", "+callbacks.unfreeze.epoch=1"),
        *UNFREEZE,
    )
    stops = (3, 9)
    mixes_samples = True
    test_it_trains_and_a_seed_reproduces_it = None  # test_any_module.py trains this module with seeds

    @pytest.fixture(autouse=True)
    def _conf(self, make_conf: MakeConf) -> Path:
        return make_conf(OPTIONS, data="none", model="boring")

    def test_the_parameters_keep_their_weights_until_their_epoch(self) -> None:
        one, two = (
            self.train(["name=one_epoch", "trainer.max_epochs=1"]),
            self.train(["name=from_epoch_2", "callbacks.unfreeze.epoch=2"]),
        )
        later = self.whole_run()
        for name, weight in weights_of(one).items():
            is_frozen = name.startswith(("net.layers.1.", "net.layers.2.")) and name.endswith((".weight", ".bias"))
            if name.startswith("net.") and name.endswith((".weight", ".bias")):
                assert torch.equal(weight, weights_of(two)[name]) == is_frozen, name
                assert not torch.equal(weight, weights_of(later)[name]), name


def test_wrong_settings() -> None:
    with pytest.raises(InputError, match="callbacks.unfreeze.epoch=-1 must be 0 or more"):
        Unfreeze(-1, ["*"])
    trainer = Trainer(logger=False, accelerator="cpu", devices=1, enable_checkpointing=False, enable_progress_bar=False)
    for patterns, message in (
        (["encoder"], "'encoder' matches no parameter"),
        (["*"], "matches all parameters of BoringModel"),
    ):
        with pytest.raises(InputError, match=f"callbacks.unfreeze.patterns.*{message}"):
            Unfreeze(1, patterns).setup(trainer, BoringModel(), "fit")
