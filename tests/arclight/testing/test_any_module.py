"""Modules, data modules and nets of any origin, by YAML alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

import arclight
from arclight.testing import ModuleSuite
from arclight.testing.module_suite import differences, weights_of
from tests.arclight.conftest import MakeConf
from tests.arclight.testing.modules import NoisyImages

HERE = "tests.arclight.testing.modules"
OPTIONS = {
    "data/images": {"_target_": f"{HERE}.NoisyImagesData", "batch_size": 8, "num_workers": 0, "is_weighted": False},
    "model/classifier": {
        "_target_": f"{HERE}.Classifier",
        "net": {"_target_": f"{HERE}.Net", "num_classes": "${data_info:num_classes}", "has_norm": True, "dropout": 0.2},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "_partial_": True, "patience": 0},
    },
    "model/gan": {"_target_": f"{HERE}.Gan"},
    "model/regression": {"_target_": f"{HERE}.Regression", "has_plateau": False},
    "model/on_stream": {"_target_": f"{HERE}.OnStream", "is_stateful": False, "num_workers": 0},
    "model/illustrated": {"_target_": f"{HERE}.Illustrated"},
    "model/boring": {"_target_": "lightning.pytorch.demos.boring_classes.BoringModel"},
    "data/boring": {"_target_": "lightning.pytorch.demos.boring_classes.BoringDataModule"},
}


class AnyModule(ModuleSuite):
    """The suite on a conf/ of these options."""

    @pytest.fixture(autouse=True)
    def _conf(self, make_conf: MakeConf) -> Path:
        return make_conf(OPTIONS, data="none", model="boring")


class AnyVariant(AnyModule):
    """Without the test of the seed, which the same module with other settings has passed."""

    test_it_trains_and_a_seed_reproduces_it = None


class TestClassifier(AnyModule):
    overrides: ClassVar[Any] = ("model=classifier", "data=images", "trainer.max_epochs=2", "monitor=val/accuracy")
    stops = (3, 9)
    mixes_samples = True

    def test_it_is_the_best_by_the_monitored_metric(self) -> None:
        run = self.whole_run()
        assert run.results["monitor"] == "val/accuracy"
        assert run.results["val/accuracy"] == max(run.curve("val/accuracy")[1])
        assert (run.folder / "checkpoints" / "best.ckpt").is_file()
        assert run.results["test/accuracy"] > 0.3

    def test_its_model_is_rebuilt_from_the_run_and_predicts_with_lightning(self) -> None:
        run, images = self.whole_run(), NoisyImages().images
        model = arclight.load_run(run.folder).model
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), batch_size=10)
        with warnings.catch_warnings(action="ignore"):  # Lightning recommends workers
            predicted: Any = trainer.predict(model, loader)
        assert model is not run.model
        assert torch.equal(torch.cat(predicted), run.model.eval()(images).argmax(1))


class TestClassifierOfIndependentSamples(AnyVariant):
    overrides: ClassVar[Any] = (
        *(
            "model=classifier",
            "data=images",
            "trainer.max_epochs=2",
            "trainer.accumulate_grad_batches=2",
            "data.is_weighted=true",
        ),
        *("model.net.has_norm=false", "model.net.dropout=0.0"),
    )
    stops = (5,)

    def test_loaders_that_are_made_again_for_each_epoch_change_nothing(self) -> None:
        once, again = self.whole_run(), self.train(["name=loaded_again", "+trainer.reload_dataloaders_every_n_epochs=1"])
        assert not differences(weights_of(once), weights_of(again))


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
class TestGan(AnyModule):
    overrides: ClassVar[Any] = ("model=gan", "data=images", "trainer.max_epochs=2")
    stops = (3,)
    mixes_samples = True


class TestRegression(AnyModule):
    overrides: ClassVar[Any] = ("model=regression", "data=none", "trainer.max_epochs=2")
    stops = (3,)

    def test_a_metric_that_the_module_chooses_when_it_is_built_is_monitored(self) -> None:
        run = self.whole_run()
        assert (run.results["monitor"], run.results["monitor_mode"]) == ("val/mse/dataloader_idx_0", "min")
        assert run.score == min(run.curve("val_mse/dataloader_idx_0")[1])


class TestPlateau(AnyVariant):
    overrides: ClassVar[Any] = ("model=regression", "data=none", "trainer.max_epochs=3", "model.has_plateau=true")
    stops = (7, 8, 13)


class TestEndInSteps(AnyVariant):
    overrides: ClassVar[Any] = ("model=regression", "data=none", "trainer.max_epochs=-1", "trainer.max_steps=10")
    stops = (7, 8)


class TestStream(AnyModule):
    overrides: ClassVar[Any] = ("model=on_stream", "data=none", "trainer.max_epochs=2")
    stops = (3, 11)
    mixes_samples = True
    is_shared_out = False


class TestStatefulStream(AnyVariant, TestStream):
    overrides: ClassVar[Any] = (*TestStream.overrides, "model.is_stateful=true")


class TestBoring(AnyModule):
    overrides: ClassVar[Any] = ("model=boring", "data=boring", "trainer.max_epochs=1")
    stops = (3,)

    def test_without_a_monitored_metric_the_last_checkpoint_counts(self) -> None:
        run = self.whole_run()
        assert run.results["monitor"] is None
        assert not (run.folder / "checkpoints" / "best.ckpt").exists()


class TestIllustrated(AnyModule):
    overrides: ClassVar[Any] = ("model=illustrated", "data=none", "trainer.max_epochs=1")

    def test_images_go_to_the_loggers_that_take_them(self) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = self.train(["logger=[csv,tensorboard]"])
        recorded = EventAccumulator(str(run.folder / "tensorboard")).Reload()
        assert recorded.Tags()["images"] == ["drawn"]


class TestTrainMonitor(AnyVariant):
    overrides: ClassVar[Any] = ("model=classifier", "data=images", "trainer.max_epochs=2", "monitor=train/accuracy")
    stops = (9,)
    mixes_samples = True

    def test_the_best_is_that_of_training_and_a_dry_run_works(self) -> None:
        run = self.whole_run()
        assert run.results["train/accuracy"] == max(run.curve("train/accuracy")[1])
        self.train(["preflight=full"])
