"""Lightning's StochasticWeightAveraging resumes exactly, before, while and after it anneals the learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from arclight.callbacks.weight_averaging import resume_averaging
from arclight.testing import ModuleSuite
from tests.arclight.conftest import MakeConf

OPTIONS = {"model/regression": {"_target_": "tests.arclight.testing.modules.Regression", "has_plateau": False}}


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
class TestStochasticWeightAveraging(ModuleSuite):
    overrides: ClassVar = (
        *("model=regression", "data=none", "trainer.max_epochs=4", "trainer.precision=64-true"),
        "+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
        *("+callbacks.swa.swa_lrs=0.01", "+callbacks.swa.swa_epoch_start=2", "+callbacks.swa.annealing_epochs=9"),
    )
    stops = (6, 13)
    test_it_trains_and_a_seed_reproduces_it = None  # test_any_module.py trains this module with seeds

    @pytest.fixture(autouse=True)
    def _conf(self, make_conf: MakeConf) -> Path:
        assert resume_averaging
        return make_conf(OPTIONS, data="none", model="regression")
