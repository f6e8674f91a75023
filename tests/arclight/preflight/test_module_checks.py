"""What a LightningModule must have."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.demos.boring_classes import BoringModel

from arclight.preflight.module_checks import missing_methods, module_class_errors

HERE = "tests.arclight.preflight.test_module_checks"


class NoStep(LightningModule):
    """Only configures optimizers."""

    def configure_optimizers(self) -> Any:
        return None


def make() -> LightningModule:
    return NoStep()


def test_missing_methods_are_named() -> None:
    (error,) = module_class_errors({"model": {"_target_": f"{HERE}.NoStep"}})
    assert str(error) == "model: NoStep has no training_step; define one that returns the loss of a batch"
    assert [str(each) for each in missing_methods(NoStep(), "model")] == [str(error)]
    errors = module_class_errors({"module": {"_target_": "lightning.pytorch.LightningModule"}})
    assert ["training_step" in str(each) or "configure_optimizers" in str(each) for each in errors] == [True, True]


def test_others_pass() -> None:
    assert not list(missing_methods(BoringModel(), "model"))
    for target in (f"{HERE}.make", "nowhere.Module", "lightning.pytorch.demos.boring_classes.BoringModel"):
        assert not list(module_class_errors({"model": {"_target_": target}}))
