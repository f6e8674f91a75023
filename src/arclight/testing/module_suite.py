"""A suite of tests for a LightningModule with its data, started by overrides as on the command line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import arclight
from arclight.checkpoint.contents import last_checkpoint, load_checkpoint
from arclight.config.compose import compose
from arclight.runs.run import Run

# Saves after every step, and leaves out what costs time
QUICK = (
    *("logger=csv", "checkpoint.every_steps=1", "checkpoint.every_minutes=null", "trainer.log_every_n_steps=1"),
    *("trainer.accelerator=cpu", "trainer.devices=1", "++callbacks.stop._target_=arclight.testing.module_suite.StopAfter"),
)
SAME = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "exact_resume")  # parts of a checkpoint to compare


class StoppedError(Exception):
    """Raised in the middle of a run, as a crash would end it."""


class StopAfter(Callback):
    """Ends a run after `num_batches` micro-batches of all its processes so far, without a save; None trains to the end."""

    num_batches: ClassVar[int | None] = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.num_batches:
            raise StoppedError


class ModuleSuite:
    """Inherit from it in a test file and name the overrides; pytest collects the tests.

        class TestMine(ModuleSuite):
            overrides = ("model=mine", "data=mine", "trainer.max_epochs=2")

    The run should be short: a few batches in each of two epochs. All tests of a suite train in one temporary directory.

    Attributes:
        overrides: as after `python train.py`.
        stops: micro-batches, in rising order, after which one run is ended and resumed.
        mixes_samples: whether a step depends on which samples share a process, as with batch norm or dropout; then two
            processes need not end in the same weights as one.
        is_shared_out: whether processes share the batches of the loaders; each has all of an iterable data set that does not
            divide itself.
    """

    overrides: ClassVar[Sequence[str]] = ()
    stops: ClassVar[Sequence[int]] = (1, 3)
    mixes_samples: ClassVar[bool] = False
    is_shared_out: ClassVar[bool] = True

    _directory: ClassVar[Path]
    _whole: ClassVar[Run]

    @pytest.fixture(autouse=True)
    def _in_the_directory_of_the_suite(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        suite = type(self)
        if "_directory" not in vars(suite):
            suite._directory = tmp_path_factory.mktemp(suite.__name__)
        monkeypatch.chdir(suite._directory)  # and back after the test
        yield
        StopAfter.num_batches = None

    def train(self, more: Sequence[str] = ()) -> Run:
        """Returns the finished run of the overrides and more of them, trained in the directory of the suite."""
        os.chdir(self._directory)  # where a fixture of the subclass may have left it
        return arclight.run([*self.overrides, *QUICK, *more])

    def whole_run(self) -> Run:
        """Returns the run of the overrides alone, trained once for all tests of the suite."""
        suite = type(self)
        if "_whole" not in vars(suite):
            suite._whole = self.train(["name=whole"])
        os.chdir(self._directory)
        return suite._whole

    def test_it_composes(self) -> None:
        assert compose(self.overrides).settings["trainer"]

    def test_it_trains_and_a_seed_reproduces_it(self) -> None:
        whole, again = self.whole_run(), self.train(["name=again"])
        assert whole.status == "finished"
        assert not differences(contents_of(whole), contents_of(again))
        other = self.train(["name=other", "seed=12345"])
        assert differences(weights_of(whole), weights_of(other)), "another seed ends in the same weights: nothing was trained"

    def test_a_stopped_run_resumes_to_the_same_weights(self) -> None:
        whole, overrides = self.whole_run(), ["name=stopped"]
        for stop in self.stops:
            StopAfter.num_batches = stop
            with pytest.raises(StoppedError):
                self.train(overrides)
            overrides = ["name=stopped", "resume=auto"]
        StopAfter.num_batches = None
        resumed = self.train(overrides)
        found = differences(contents_of(whole), contents_of(resumed))
        assert not found, f"stopped after batches {self.stops} and resumed, these differ: {', '.join(found[:5])}"
        assert metrics_of(whole) == metrics_of(resumed)
        assert curves_of(whole) == curves_of(resumed)

    def test_the_checkpoint_is_plain(self) -> None:
        run = self.whole_run()
        assert contents_of(run)["state_dict"]  # read with weights_only=True
        assert run.restored.module.state_dict().keys() == weights_of(run).keys()

    @pytest.mark.processes
    def test_two_processes_end_as_one_does(self) -> None:
        # without data.batch_size, a global batch is that of the loader times the processes
        is_same_batch = not self.is_shared_out or "batch_size" in compose(self.overrides).settings["data"]
        one = self.whole_run() if is_same_batch else self.train(["name=one", "trainer.accumulate_grad_batches=2"])
        two = self.train(["name=two", "strategy=ddp_cpu", "trainer.devices=2"])
        assert one.results["steps"] == two.results["steps"]
        if not self.mixes_samples:
            for name, weight in weights_of(one).items():
                torch.testing.assert_close(weight, weights_of(two)[name], atol=1e-5, rtol=0)


def contents_of(run: Run) -> dict[str, Any]:
    """Returns what the last checkpoint of a run holds of its training."""
    contents = load_checkpoint(last_checkpoint(run.folder))
    return {key: contents[key] for key in SAME if key in contents}


def weights_of(run: Run) -> dict[str, Any]:
    """Returns the last weights of a run."""
    return dict(load_checkpoint(last_checkpoint(run.folder))["state_dict"])


def metrics_of(run: Run) -> dict[str, str]:
    """Returns the metrics in results.json, as text, in which nan equals nan."""
    return {key: str(value) for key, value in run.results.items() if key.startswith(("val/", "test/")) or key == "steps"}


def curves_of(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Returns the steps and values of everything that was logged; speeds left out."""
    names = [name for name in run.metrics if not name.endswith("_per_s")]
    return {name: list(zip(*(column.tolist() for column in run.curve(name)), strict=True)) for name in names}


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Returns the keys of nested values under which they differ in a bit."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = dict.fromkeys([*first, *second])
        return [
            found
            for key in keys
            for found in differences(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for place, pair in pairs for found in differences(*pair, f"{path}.{place}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    both_nan = isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second)
    return [] if both_nan or first == second else [path]
