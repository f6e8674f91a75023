"""What is wrong with modules and loaders of the user's own is one InputError, with its place and what to do.

Tests arclight.data.loader_errors and arclight.callbacks.stop_on_nan as a user meets them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import arclight
from arclight.errors import InputError
from arclight.runs.run import Run
from tests.arclight.conftest import MakeConf

HERE = "tests.arclight.testing.bad_modules"
OPTIONS = {
    "data/own": {"_target_": f"{HERE}.Data", "problem": "", "batch_size": 4, "num_workers": 0},
    "model/own": {"_target_": f"{HERE}.Module", "api_key": None, "optimizer": "sgd"},
    "model/no_step": {"_target_": f"{HERE}.NoStep"},
    "model/no_optimizer": {"_target_": f"{HERE}.NoOptimizer"},
    "model/made": {"_target_": f"{HERE}.make_module", "kind": "no_step"},
}
QUICK = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=2", "logger=csv", "trainer.log_every_n_steps=2")


@pytest.fixture(autouse=True)
def _conf(make_conf: MakeConf) -> Path:
    return make_conf(OPTIONS, data="own", model="own")


def train(*overrides: str) -> Run:
    return arclight.run([*QUICK, *overrides])


def error_of(*overrides: str) -> str:
    with pytest.raises(InputError) as raised:
        train(*overrides)
    return str(raised.value)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("empty", "of Samples has no samples; leave such batches out in the loader or collate_fn"),
        ("none", "data: batch 0 of Samples is None; leave such batches out"),
        ("stream_empty", "data: batch 1 of Batches has no samples"),
        ("ragged", "data: samples of Samples differ in shape: stack expects each tensor to be equal size"),
        ("ragged_list", "data: samples of Samples differ in shape: each element in list of batch should be of equal size"),
        ("stream_ragged", "data: samples of Stream differ in shape: stack expects"),
        ("object", "data: samples of Samples form no batch: default_collate: batch must contain"),
        ("length_changes", "when training started; keep its length, set +trainer.reload_dataloaders_every_n_epochs=1"),
    ],
)
def test_a_loader_without_good_batches(problem: str, message: str) -> None:
    text = error_of(f"data.problem={problem}")
    assert message in text
    if problem.endswith(("ragged", "ragged_list", "object")):
        assert "give its DataLoader a collate_fn (with data=datasets: data.collate_fn)" in text


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("ragged", "data: samples of Samples differ in shape: Trying to resize storage that is not resizable"),
        ("worker_dies", "data: a DataLoader worker died while it read Samples"),
    ],
)
def test_errors_in_workers(problem: str, message: str) -> None:
    text = error_of(f"data.problem={problem}", "data.num_workers=1")
    assert message in text
    assert "num_workers=0" in text or problem == "ragged"
    assert "Traceback" not in text


def test_a_module_without_the_methods_to_train_it() -> None:
    text = "define one that returns"
    assert f"model: NoStep has no training_step; {text} the loss of a batch" in error_of("model=no_step")
    assert f"model: NoOptimizer has no configure_optimizers; {text} an optimizer" in error_of("model=no_optimizer")
    assert "model: NoStep has no training_step" in error_of("model=made")
    assert "model: NoOptimizer has no configure_optimizers" in error_of("model=made", "model.kind=no_optimizer")


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None")
def test_no_optimizer() -> None:
    assert error_of("model.optimizer=none") == (
        "Module.configure_optimizers returns no optimizer, so nothing would be trained; return one"
    )


@pytest.mark.parametrize(
    ("problem", "message", "steps"),
    [
        (
            "batch_sampler",
            "data.batch_size=4 has no effect in arclight: the training batches come from the loader's own Chunks",
            16,
        ),
        ("other_size", "data.batch_size=4 counts, not batch_size=6 of the training DataLoader", 12),
        ("", "", 12),
    ],
)
def test_a_batch_size_that_the_loader_ignores_is_logged(problem: str, message: str, steps: int) -> None:
    run = train(f"data.problem={problem}")
    warnings = [line for line in (run.folder / "train.log").read_text().splitlines() if "data.batch_size=4" in line]
    assert [message in text for text in warnings] == ([True] if message else [])
    assert run.results["steps"] == steps


def test_a_secret_among_the_hyperparameters_is_in_no_file() -> None:
    secret = "correct-horse-battery"
    run = train(f"model.api_key={secret}", "logger=[csv,tensorboard]")
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {"config.yaml", "last.ckpt", "train.log", "metrics.csv"} <= {path.name for path in files}
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_a_nan_loss_stops_with_its_step_and_samples() -> None:
    text = error_of("data.problem=not_a_number", "callbacks=stop_on_nan", "trainer.log_every_n_steps=3")
    assert text.startswith("the loss is nan in step ")
    samples = text.partition("its samples of the training data: ")[2].partition(". Look")[0].split(", ")
    assert len(samples) == 4
    assert "7" in samples


def test_a_finite_loss_does_not_stop() -> None:
    assert train("callbacks=stop_on_nan").status == "finished"
