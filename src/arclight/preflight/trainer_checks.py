"""What Lightning's Trainer and its callbacks would refuse once data and net are loaded: a Trainer is built as a trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    ThroughputMonitor,
)

from arclight import hardware
from arclight.callbacks.best_checkpoint import best_checkpoint
from arclight.config.instantiate import build
from arclight.console.terminal import silence_lightning
from arclight.errors import InputError, first_line, raised_last_in
from arclight.hardware.plan import is_sharded
from arclight.interfaces import Monitor

# arguments that the engine sets itself: the value that changes nothing, and what to type instead
SET_BY_ENGINE: dict[str, tuple[Any, str]] = {
    "barebones": (False, "the speed of a config is measured by: python -m arclight benchmark train"),
    "callbacks": (None, "callbacks are set in the group callbacks"),
    "default_root_dir": (None, "hydra.run.dir=... sets the run directory"),
    "enable_checkpointing": (True, "a run resumes from its checkpoints; debug=one_batch saves none"),
    "enable_model_summary": (False, "callbacks=[early_stopping,model_summary] prints one"),
    "logger": (None, "loggers are set in the group logger; logger=none logs nothing"),
    "num_sanity_val_steps": (0, "preflight=full runs training and validation once before training"),
    "plugins": (None, "the plugin that writes checkpoints is set by the engine"),
    "use_distributed_sampler": (False, "the loaders give each process its part of a batch themselves"),
}
GLOBAL = ("deterministic", "benchmark", "detect_anomaly")  # Lightning applies them to the process when a Trainer is built
NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)
NOT_SUPPORTED = " If you want to validate based on the total training batches"  # advice of Lightning's
CONFIG_ERRORS = (ValueError, TypeError, RuntimeError, ImportError, AttributeError, MisconfigurationException)


def argument_errors(trainer: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for each argument of the Trainer that the engine sets itself, with what to type instead."""
    for name, (harmless, instead) in SET_BY_ENGINE.items():
        if name in trainer and trainer[name] is not None and trainer[name] != harmless:
            message = f"trainer.{name}={trainer[name]} has no effect: the engine sets it; {instead}"
            yield InputError(message, key=f"trainer.{name}")


def null_errors(overrides: Sequence[str]) -> Iterator[InputError]:
    """Yields an error for null where it is a value of its own in Lightning, and the default here."""
    if "trainer.check_val_every_n_epoch=null" in overrides:
        message = (
            "trainer.check_val_every_n_epoch=null: null is every epoch here; validation by batches across epochs is not "
            "supported. Inside an epoch: trainer.val_check_interval=N"
        )
        yield InputError(message, key="trainer.check_val_every_n_epoch")


def callback_errors(callbacks: Mapping[str, Callback], monitor: Monitor | None, *, has_logger: bool) -> Iterator[InputError]:
    """Yields an error for each built callback, by its key, that does not work with the rest of the config."""
    taken = {best_checkpoint(Path(), monitor).state_key: "that of best.ckpt, which is always saved"} if monitor else {}
    for path, callback in callbacks.items():
        leave_out = f"~{path} leaves it out"
        if isinstance(callback, ProgressBar):
            message = f"there is always a progress bar in a terminal; +trainer.enable_progress_bar=false hides it; {leave_out}"
            yield InputError(f"{path}: {message}", key=path)
        elif isinstance(callback, NEED_LOGGER) and not has_logger:
            yield InputError(f"{path}: {type(callback).__name__} needs a logger: logger=csv; {leave_out}", key=path)
        elif isinstance(callback, GradientAccumulationScheduler):
            yield InputError(f"{path}: the accumulation steps follow from data.max_batch_per_device; {leave_out}", key=path)
        key = callback.state_key
        if isinstance(callback, ModelCheckpoint) and key in taken:
            message = f"saves by the same rule as {taken[key]}; set another monitor or interval, or checkpoint.save_top_k=3"
            yield InputError(f"{path} {message}; {leave_out}", key=path)
        elif key in taken and type(callback).state_dict is not Callback.state_dict:
            yield InputError(f"{path}: {taken[key]} is of the same class; keep one; {leave_out}", key=path)
        taken[key] = path


def trial_errors(trainer: Mapping[str, Any], decisions: Mapping[str, hardware.Decision]) -> Iterator[InputError]:
    """Yields what Lightning refuses when a Trainer of these settings is built, without loggers and callbacks.

    Args:
        trainer: the settings, without null.
        decisions: the hardware plan; empty where it has errors, which are reported elsewhere.
    """
    if not decisions or (decisions["accelerator"].value == "cuda" and not torch.cuda.is_available()):
        return  # the plan of another machine
    settings = {key: value for key, value in trainer.items() if key not in (*SET_BY_ENGINE, *GLOBAL)}
    settings |= hardware.for_trainer(decisions)
    if is_sharded(settings["strategy"]):
        settings["strategy"] = "auto"  # the engine has its own, for GPUs and CPUs
    given = {"logger": False, "callbacks": [], "enable_progress_bar": False, "enable_model_summary": False}
    try:
        with silence_lightning(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build(settings, "trainer", {**given, "enable_checkpointing": False})
    except InputError as error:
        yield from error.errors
    except CONFIG_ERRORS as error:
        yield InputError(f"trainer: {first_line(error)}{_cause(settings, error)}", key=_key(settings, error))


def _key(settings: Mapping[str, Any], error: Exception) -> str | None:
    """Returns the key of the argument that a message of Lightning names; None where it names none."""
    named = [name for name in settings if f"`{name}`" in str(error)]
    return f"trainer.{named[0]}" if named else None


def _cause(settings: Mapping[str, Any], error: Exception) -> str:
    """Returns the requested strategy and accelerator, where a message of Lightning is about what these need."""
    named = f"; trainer.accelerator={settings['accelerator']}, trainer.strategy={settings['strategy']}"
    return "" if _key(settings, error) else named


@contextmanager
def explain_trainer_errors() -> Iterator[None]:
    """Context manager that turns what Lightning says about the config once it knows the data into an InputError.

    Raises:
        InputError: for a MisconfigurationException, and a ValueError of Lightning's own.
    """
    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, InputError) or not (
            isinstance(error, MisconfigurationException) or raised_last_in(error, "lightning.")
        ):
            raise
        text = " ".join(str(error).split()).partition(NOT_SUPPORTED)[0]
        raise InputError(f"trainer: {text}") from error
