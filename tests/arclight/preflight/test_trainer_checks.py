"""What Lightning's Trainer would refuse after data and net have been loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.demos.boring_classes import BoringModel

from arclight import hardware
from arclight.errors import InputError
from arclight.hardware import HardwareInfo
from arclight.interfaces import Monitor
from arclight.preflight.ranges import size_errors
from arclight.preflight.trainer_checks import (
    argument_errors,
    callback_errors,
    explain_trainer_errors,
    null_errors,
    trial_errors,
)

CPU = HardwareInfo(num_cores=2, memory_bytes=2**34)
MONITOR = Monitor("val/accuracy", "max")


def trial(**trainer: Any) -> list[str]:
    settings = {"_target_": "lightning.pytorch.Trainer", **trainer}
    return [str(error) for error in trial_errors(settings, hardware.plan(CPU, {"precision": "32-true", **trainer}))]


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("barebones", True, "benchmark train"),
        ("enable_checkpointing", False, "resumes from its checkpoints"),
        ("default_root_dir", "/x", "hydra.run.dir"),
        ("num_sanity_val_steps", 2, "preflight=full"),
        ("logger", True, "logger=none"),
        ("callbacks", [], "group callbacks"),
        ("plugins", ["x"], "writes checkpoints"),
    ],
)
def test_arguments_that_the_engine_sets(name: str, value: Any, word: str) -> None:
    (error,) = argument_errors({name: value})
    assert str(error).startswith(f"trainer.{name}={value} has no effect")
    assert word in str(error)


def test_arguments_that_change_nothing_pass() -> None:
    harmless = {"enable_checkpointing": True, "barebones": False, "num_sanity_val_steps": 0, "logger": None, "max_epochs": 3}
    assert list(argument_errors(harmless)) == []
    assert list(null_errors(["seed=1", "trainer.val_check_interval=null"])) == []


def test_null_that_lightning_reads_otherwise() -> None:
    (error,) = null_errors(["trainer.check_val_every_n_epoch=null"])
    assert "trainer.val_check_interval=N" in str(error)


def test_a_trainer_is_built_as_a_trial() -> None:
    assert trial(max_epochs=3, deterministic=True, strategy="ddp", devices=2) == []
    assert trial(strategy="fsdp", devices=2) == []
    assert "'simple', 'advanced'" in trial(profiler="nonsense")[0]
    assert "you must have DeepSpeed installed" in trial(strategy="deepspeed")[0]
    assert "torch_xla" in trial(accelerator="tpu")[0]
    assert list(trial_errors({"_target_": "lightning.pytorch.Trainer", "profiler": "nonsense"}, {})) == []


@pytest.mark.parametrize(
    ("callback", "word"),
    [
        (ModelCheckpoint(monitor="val/accuracy", mode="max"), "best.ckpt"),
        (RichProgressBar(), "always a progress bar"),
        (LearningRateMonitor(), "needs a logger: logger=csv"),
        (DeviceStatsMonitor(), "needs a logger: logger=csv"),
        (GradientAccumulationScheduler({2: 4}), "data.max_batch_per_device"),
    ],
)
def test_callbacks_that_do_not_work_here(callback: Callback, word: str) -> None:
    (error,) = callback_errors({"callbacks.mine": callback}, MONITOR, has_logger=False)
    assert str(error).startswith("callbacks.mine")
    assert word in str(error)
    assert "~callbacks.mine leaves it out" in str(error)


def test_callbacks_that_work() -> None:
    fine: Mapping[str, Callback] = {
        "callbacks.rate": LearningRateMonitor(),
        "callbacks.loss": ModelCheckpoint(monitor="val/loss"),
        "callbacks.stop": EarlyStopping("val/loss"),
        "callbacks.other": EarlyStopping("val/accuracy", mode="max"),
        "callbacks.plain": Callback(),
        "callbacks.plain_2": Callback(),
    }
    assert list(callback_errors(fine, MONITOR, has_logger=True)) == []
    twice = {"callbacks.a": EarlyStopping("val/loss"), "callbacks.b": EarlyStopping("val/loss")}
    (error,) = callback_errors(twice, None, has_logger=True)
    assert str(error).startswith("callbacks.b: callbacks.a is of the same class")


def test_what_lightning_knows_once_it_has_the_data_is_one_message() -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    quiet |= {"accelerator": "cpu", "enable_model_summary": False}
    with (
        pytest.raises(
            InputError, match=r"^trainer: `val_check_interval` \(99\) must be less .* `limit_val_batches` to 0.0 instead\.$"
        ),
        explain_trainer_errors(),
    ):
        Trainer(**quiet, val_check_interval=99, limit_train_batches=2).fit(BoringModel())
    with pytest.raises(InputError, match="limit_train_batches=0"), explain_trainer_errors():
        Trainer(**quiet, limit_train_batches=0.0001).fit(BoringModel())


@pytest.mark.parametrize("error", [ValueError("of a user's code"), RuntimeError("x"), InputError("known")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_trainer_errors():
        raise error
    assert raised.value is error
    with pytest.raises(InputError, match="^trainer: of a callback$"), explain_trainer_errors():
        raise MisconfigurationException("of a callback")


def test_whole_numbers_without_end() -> None:
    settings = {"seed": 2**32 - 1, "data": {"size": 2**31, "big": 10**5000, "fine": 2**31 - 1}, "rate": 1e300}
    first, second = size_errors(settings)
    assert str(first) == "data.size=2147483648 is out of range: whole numbers are at most 2147483647"
    assert str(second).startswith("data.big=(a number of more than 30 digits) is out of range")
