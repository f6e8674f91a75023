"""A run killed at any moment resumes to the same result: everything it saves at its end is equal, bit for bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from arclight import hardware
from arclight.checkpoint import contents
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.config.compose import compose
from arclight.distributed.signals import Interrupted, Interruption
from arclight.errors import InputError
from arclight.runs import build, run_directory
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

COMMON = [
    *("precision=fp32", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=2", "trainer.log_every_n_steps=2"),
    *("callbacks=[early_stopping,weight_averaging]", "checkpoint.every_steps=1", "logger=csv"),
]
IMAGES = [*TINY_IMAGES, "data.augment.crop=2", "scheduler=one_cycle", "data.num_train=48", *COMMON]
TEXT = [*TINY_TEXT, "model.dropout=0.3", "data.num_train=48", *COMMON]
TASKS = {  # with the micro-batches per step
    "images": (IMAGES, 1),
    "images in 2 micro-batches": ([*IMAGES, "data.max_batch_per_device=8"], 2),
    "text": (TEXT, 1),
    "text in 4 micro-batches": ([*TEXT, "data.max_batch_per_device=4"], 4),
}


class Killed(BaseException):
    """Like a SIGKILL: nothing in the run may catch it."""


class Killer(Callback):
    """Ends the run when a hook is called for the n-th time."""

    def __init__(self, hook: str, number: int) -> None:
        self.left = number
        setattr(self, hook, self._count)

    def _count(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class Made:
    """A run in its directory, resumed if it has a checkpoint."""

    def __init__(
        self, folder: Path, overrides: list[str], *callbacks: Callback, interruption: Interruption | None = None
    ) -> None:
        self.folder = folder
        run_config = compose(overrides)
        run_config = type(run_config)(**{**run_config.__dict__, "folder": folder})
        with run_directory.log_to_file(folder):
            begin = contents.newest_intact(folder)
            self.parts = build.build_components(
                run_config, hardware.probe(), [], Console(quiet=True), interruption=interruption, ckpt_path=begin
            )
            trainer = self.parts.trainer
            trainer.callbacks = [*callbacks, *trainer.callbacks]  # type: ignore[attr-defined]
            trainer.fit(self.parts.module, self.parts.data, ckpt_path=begin, weights_only=True)

    @property
    def curve(self) -> list[dict[str, str]]:
        with (self.folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return [{key: value for key, value in row.items() if value and not key.endswith("_s")} for row in rows]


def saves_of(parts: build.RunComponents) -> int:
    (last,) = (callback for callback in parts.trainer.callbacks if isinstance(callback, LastCheckpoint))  # type: ignore[attr-defined]
    return last.num_saves


def kill(folder: Path, overrides: list[str], *callbacks: Callback) -> bool:
    """Returns whether the run finished before it was killed."""
    try:
        Made(folder, overrides, *callbacks)
    except Killed:
        return False
    return True


def assert_same(one: Any, other: Any, path: str = "") -> None:
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        left, right = ({of_any_folder(key): value for key, value in node.items()} for node in (one, other))
        assert left.keys() == right.keys(), path
        for key in left.keys() - {"current_score"}:  # of the last best one, for Lightning's message only
            assert_same(left[key], right[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}/{number}")
    else:
        assert of_any_folder(one) == of_any_folder(other), path


def of_any_folder(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def assert_same_runs(again: Made, whole: Made) -> None:
    saved = [torch.load(contents.last_checkpoint(made.folder), weights_only=True) for made in (again, whole)]
    assert_same(*saved)
    for name in ("best", "last"):
        weights = [
            contents.load_checkpoint(made.folder / "checkpoints" / f"{name}.ckpt")["state_dict"] for made in (again, whole)
        ]
        assert_same(*weights)
    assert again.parts.epochs.best == whole.parts.epochs.best
    assert again.curve == whole.curve


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {name: Made(tmp_path_factory.mktemp("whole"), overrides) for name, (overrides, _) in TASKS.items()}


@pytest.mark.parametrize("module", TASKS)
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end"])
def test_killed_in_every_step(module: str, hook: str, wholes: dict[str, Made], tmp_path: Path) -> None:
    """One run killed again and again, one step later each time and in each micro-batch."""
    overrides, num_parts = TASKS[module]
    num_kills = 0
    while not kill(tmp_path, overrides, Killer(hook, num_parts + 1 + num_kills % num_parts)):
        num_kills += 1
        assert num_kills < 30
    assert num_kills >= 3
    assert_same_runs(Made(tmp_path, TASKS[module][0]), wholes[module])


@pytest.mark.parametrize(
    ("hook", "number"),
    [
        *(("on_validation_start", 1), ("on_validation_batch_start", 2), ("on_validation_end", 2), ("on_train_epoch_start", 2)),
        *(("on_train_epoch_end", 1), ("on_train_epoch_end", 2), ("on_save_checkpoint", 3), ("on_train_end", 1)),
    ],
)
def test_killed_between_steps(hook: str, number: int, wholes: dict[str, Made], tmp_path: Path) -> None:
    overrides, _ = TASKS["images"]
    assert not kill(tmp_path, overrides, Killer(hook, number))
    again = Made(tmp_path, overrides)
    if hook != "on_train_end":  # the last row of the curve is written in it
        assert_same_runs(again, wholes["images"])


@pytest.mark.parametrize("number", range(1, 8))
def test_killed_while_a_checkpoint_is_written(
    number: int, wholes: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, _ = TASKS["images"]
    left = number

    def fail(_: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("arclight.checkpoint.atomic_write.os.fsync", fail)
        assert not kill(tmp_path, overrides)
    assert_same_runs(Made(tmp_path, overrides), wholes["images"])


VALIDATED_INSIDE = [*IMAGES, "data.num_train=96", "trainer.val_check_interval=0.5", "callbacks=weight_averaging"]


@pytest.mark.parametrize("number", [2, 4, 5])
def test_killed_where_validation_comes_inside_the_epoch(number: int, tmp_path: Path) -> None:
    whole = Made(tmp_path / "whole", VALIDATED_INSIDE)
    assert saves_of(whole.parts) == 2 * (4 + 1)  # after steps 1, 2, 4, 5 and at the end
    assert not kill(tmp_path / "again", VALIDATED_INSIDE, Killer("on_train_batch_start", number))
    assert_same_runs(Made(tmp_path / "again", VALIDATED_INSIDE), whole)


def test_overfitting_fixed_batches_resumes(tmp_path: Path) -> None:
    fixed = [*IMAGES, "callbacks=none", "trainer.overfit_batches=3"]
    whole = Made(tmp_path / "whole", fixed)
    assert not kill(tmp_path / "again", fixed, Killer("on_train_batch_start", 6))
    assert_same_runs(Made(tmp_path / "again", fixed), whole)


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    soon = [*IMAGES, "trainer.max_epochs=5", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    soon += ["+callbacks.early_stopping.min_delta=10"]
    Made(tmp_path, soon)
    assert contents.steps_done(contents.last_checkpoint(tmp_path)) == 2 * 3
    assert Made(tmp_path, soon).parts.trainer.global_step == 2 * 3


def test_saves_follow_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path / "steps", [*IMAGES, "checkpoint.every_steps=2"])
    assert saves_of(made.parts) == 4  # after steps 2 and 4 and at both ends
    made = Made(tmp_path / "epochs", [*IMAGES, "checkpoint=epoch", "checkpoint.every_steps=null"])
    assert saves_of(made.parts) == 2
    assert not list((tmp_path / "epochs" / "checkpoints").glob("*previous*"))
    clock = iter(range(0, 100_000, 31))
    monkeypatch.setattr("arclight.checkpoint.last_checkpoint.time.monotonic", lambda: float(next(clock)))
    made = Made(tmp_path / "minutes", [*IMAGES, "checkpoint.every_steps=null", "checkpoint.every_minutes=1"])
    assert saves_of(made.parts) > 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_minutes": 0}, "checkpoint.every_minutes=0 must be more than 0 and finite, or null"),
        ({"every_steps": 0}, "checkpoint.every_steps=0 must be 1 or more, or null"),
        ({"keep": 0}, "checkpoint.keep=0 must be 1 to 1000; 1 keeps only the last one"),
    ],
)
def test_settings_out_of_range_are_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LastCheckpoint(Path(), **settings)


class Sender(Callback):
    """Calls the run's signal handler when a hook is called for the n-th time."""

    def __init__(self, interruption: Interruption, hook: str, number: int) -> None:
        self.interruption, self.left = interruption, number
        setattr(self, hook, self._count)

    def _count(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.interruption.handle(15, None)


@pytest.mark.parametrize(
    ("hook", "number", "step"),
    [("on_train_batch_start", 2, 1), ("on_train_batch_start", 2 * 3 + 2, 4), ("on_validation_start", 1, 3)],
    ids=["in the first step", "in the second epoch", "in validation"],
)
def test_a_signal_is_handled_after_the_step(
    hook: str, number: int, step: int, wholes: dict[str, Made], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = "images in 2 micro-batches"
    overrides = [*TASKS[module][0], "checkpoint.every_steps=null"]
    interruption = Interruption()
    with pytest.raises(Interrupted) as left:
        Made(tmp_path, overrides, Sender(interruption, hook, number), interruption=interruption)
    assert left.value.code == 128 + 15
    assert "SIGTERM: Stopping after this step and saving; Ctrl-C again quits now" in capfd.readouterr().err
    assert contents.steps_done(contents.last_checkpoint(tmp_path)) == step
    assert_same_runs(Made(tmp_path, TASKS[module][0]), wholes[module])


class StepMetric(Callback):
    """Logs as modules do: Lightning gives the row the number of the steps before."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        pl_module.log("own", float(trainer.global_step), on_step=True, on_epoch=False)


@pytest.mark.parametrize("end", ["a signal", "a kill"])
def test_what_a_module_logs_at_each_step_is_recorded_once(end: str, tmp_path: Path) -> None:
    overrides, interruption = [*IMAGES, "trainer.log_every_n_steps=1", "checkpoint.every_steps=2"], Interruption()
    stopper = Sender(interruption, "on_train_batch_start", 2) if end == "a signal" else Killer("on_train_batch_start", 6)
    with pytest.raises((Interrupted, Killed)):
        Made(tmp_path, overrides, StepMetric(), stopper, interruption=interruption)
    again = Made(tmp_path, overrides, StepMetric())
    steps = [(row["step"], float(row["own"])) for row in again.curve if "own" in row]
    assert steps == [(str(step), step) for step in range(6)]
