"""A run that is resumed with other settings takes weights, moments and position from its checkpoint, not the old settings."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from arclight.config.differences import differences
from arclight.config.redaction import without_secrets

COUNTERS = ("last_epoch", "_step_count", "best", "num_bad_epochs", "cooldown_counter")  # of schedulers: all that is no setting

log = logging.getLogger(__name__)


class ChangedSettings(Callback):
    """Lets the settings of a run win over those in the checkpoint that it resumes from.

    Lightning restores an optimizer's learning rate and weight decay, a scheduler's settings and a callback's patience along
    with their states. Without a change that matters, this does nothing. It comes before the callbacks whose states it edits.

    Args:
        settings: the config of the run.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = without_secrets(settings)
        self._checkpoint: dict[str, Any] | None = None  # that is resumed with other settings

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        names = names_of(pl_module)
        checkpoint["optimizers"] = [
            {"kind": kind_of(optimizer), "parameters": parameter_names(optimizer, names)} for optimizer in trainer.optimizers
        ]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        before = checkpoint.get("arclight", {}).get("settings")
        changed = {} if before is None else differences(before, self.settings)
        if not changed:
            return
        log.info("resumed with other settings: %s", ", ".join(f"{key}={now!r}" for key, (_, now) in changed.items()))
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set outside __init__
        if any(key.startswith("callbacks.") or key == "callbacks" for key in changed):
            keep_arguments(callbacks, checkpoint)
        averages = checkpoint.get("current_model_state")
        if averages is not None and not any(isinstance(callback, WeightAveraging) for callback in callbacks):
            trainer.strategy.load_model_state_dict({"state_dict": averages})  # else it would train the averages
        self._checkpoint = checkpoint
        if trainer.strategy.restore_checkpoint_after_setup:  # its optimizers are there already
            replace_states(trainer, pl_module, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._checkpoint is not None:
            replace_states(trainer, pl_module, self._checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._checkpoint is not None:
            self._checkpoint = None
            set_learning_rates(trainer)


def kind_of(thing: Any) -> str:
    """Returns the dotted name of an object's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def names_of(module: LightningModule) -> dict[int, str]:
    """Returns the names of a module's parameters, by their id."""
    return {id(parameter): name for name, parameter in module.named_parameters()}


def parameter_names(optimizer: Optimizer, names: Mapping[int, str]) -> list[str]:
    """Returns the names of an optimizer's parameters in the order of its state; a place in it for one that has no name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(id(parameter), str(place)) for place, parameter in enumerate(parameters)]


def keep_arguments(callbacks: Sequence[Any], checkpoint: dict[str, Any]) -> None:
    """Puts what the callbacks were constructed with in the place of what the checkpoint holds, such as a patience."""
    states: dict[str, Any] = checkpoint.get("callbacks", {})
    for callback in callbacks:
        state = states.get(callback.state_key)
        if isinstance(state, dict):
            arguments = inspect.signature(type(callback).__init__).parameters
            state.update({name: getattr(callback, name) for name in state.keys() & arguments.keys() if hasattr(callback, name)})
    stoppers = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    patient = [one for one in stoppers if states.get(one.state_key, {}).get("wait_count", 0) < one.patience]
    if len(patient) == len(stoppers):
        checkpoint["stopped_early"] = False


def replace_states(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Replaces the states in the checkpoint: settings of the optimizers and schedulers of now, moments and counters of then."""
    names = names_of(module)
    described = checkpoint.get("optimizers") or [{}] * len(checkpoint["optimizer_states"])
    pairs = zip(trainer.optimizers, checkpoint["optimizer_states"], described, strict=False)
    checkpoint["optimizer_states"] = [
        resumed_optimizer(optimizer, saved, then, parameter_names(optimizer, names)) for optimizer, saved, then in pairs
    ]
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    states = []
    for config, saved in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=False):
        done = {"step": checkpoint["global_step"], "epoch": epochs}[config.interval] // config.frequency
        states.append(resumed_scheduler(config.scheduler.state_dict(), saved, done))
    checkpoint["lr_schedulers"] = states


def resumed_optimizer(
    optimizer: Optimizer, saved: Mapping[str, Any], then: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Returns the state of an optimizer: its own settings, the moments and the scheduled fraction of the checkpoint.

    Args:
        optimizer: as the config of now builds it.
        saved: its state in the checkpoint.
        then: what `ChangedSettings` stored of it, empty for a checkpoint of an older version.
        names: of its parameters.
    """
    state: dict[str, Any] = optimizer.state_dict()
    names_then = then.get("parameters", names)
    if then.get("kind", kind_of(optimizer)) != kind_of(optimizer):
        log.warning("%s starts without moments: the checkpoint has those of %s", kind_of(optimizer), then["kind"])
    else:
        places = {name: place for place, name in enumerate(names_then)}
        moments = {place: saved["state"].get(places.get(name)) for place, name in enumerate(names)}
        state["state"] = {place: value for place, value in moments.items() if value is not None}
    groups_then = dict(by_name(saved["param_groups"], names_then))
    for group in state["param_groups"]:
        before = groups_then.get(names[group["params"][0]], {}) if group["params"] else {}
        rate, rate_then = group.get("initial_lr", group["lr"]), before.get("initial_lr", before.get("lr"))
        if rate_then:
            group["lr"] = before["lr"] if rate == rate_then else rate * before["lr"] / rate_then
    return state


def by_name(groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each parameter's name with its group."""
    for group in groups:
        yield from ((names[place], group) for place in group["params"])


def resumed_scheduler(own: dict[str, Any], saved: Mapping[str, Any], done: int) -> dict[str, Any]:
    """Returns the state of a scheduler: its own settings and the counters of the checkpoint, those of its parts included.

    Args:
        own: its state as the config of now builds it.
        saved: its state in the checkpoint.
        done: how often it has stepped, where the checkpoint has another kind of scheduler, without a counter.
    """
    counters = {name: saved.get(name, done + (name == "_step_count")) for name in COUNTERS[:2] if name in own}
    counters |= {name: saved[name] for name in COUNTERS[2:] if name in own and name in saved}
    parts, parts_then = own.get("_schedulers"), saved.get("_schedulers")
    if parts and parts_then and len(parts) == len(parts_then):
        counters["_schedulers"] = [resumed_scheduler(*pair, done) for pair in zip(parts, parts_then, strict=True)]
    return {**own, **counters}


def set_learning_rates(trainer: Trainer) -> None:
    """Sets the rates to those of the schedulers at their present position, where these have a formula for it."""
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if isinstance(scheduler, LambdaLR):
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [rate * factor(scheduler.last_epoch) for rate, factor in pairs]
        elif hasattr(scheduler, "_get_closed_form_lr"):
            rates = scheduler._get_closed_form_lr()
        else:
            continue
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = list(rates)
