"""Errors inside a config: arguments of targets, ranges, and settings that exclude each other.

What only one class knows it checks itself, by `preflight` (see `arclight.interfaces`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from arclight import hardware
from arclight.checkpoint.contents import NETS, OPTIMIZERS, SCHEDULERS
from arclight.config import locations
from arclight.config.groups import late_names, module_group, module_settings, resolve_late
from arclight.config.hardware_plan import plan_hardware
from arclight.config.instantiate import build, find_errors, find_target, parameters_of
from arclight.config.known_names import options_of, targets
from arclight.data.datamodule import DataModule
from arclight.errors import InputError, closest, nearest
from arclight.hardware.plan import FOR_TRAINER
from arclight.interfaces import DataInfo, Monitor, PreflightContext, monitor_of
from arclight.loggers.factory import OFFERED
from arclight.optim.param_groups import read_rates
from arclight.optim.schedulers import try_scheduler, without_interval
from arclight.preflight.module_checks import module_class_errors
from arclight.preflight.ranges import size_errors, trainer_errors
from arclight.preflight.top_level_checks import MODES, is_seed
from arclight.preflight.trainer_checks import argument_errors, callback_errors, trial_errors

GIVEN = {  # arguments that YAML cannot hold, by the group whose target gets them
    "data": ("seed",),
    "model": ("data_info", "num_classes", *OPTIMIZERS, *SCHEDULERS),
    "module": ("data_info", "num_classes", *NETS, *OPTIMIZERS, *SCHEDULERS),
    "optimizer": (),
    "scheduler": (),
    "trainer": (),
    "checkpoint": ("folder", "interruption"),
}


def check_config(settings: Mapping[str, Any], hardware_info: hardware.HardwareInfo) -> list[InputError]:
    """Returns everything that is wrong with a config."""
    errors: list[InputError] = []
    seed = settings["seed"]
    if not is_seed(seed):  # reported by `top_level_errors`; null is drawn when the run starts
        settings = {**settings, "seed": 0}
    # null is Lightning's own default, and the hardware plan checks what it decides
    trainer = {
        key: value
        for key, value in settings["trainer"].items()
        if value is not None and (key not in FOR_TRAINER or isinstance(value, Mapping))
    }
    found, decisions = _hardware_errors(settings, hardware_info)
    settings = {**settings, "trainer": trainer}
    info_type = info_type_of(settings, "module")
    stand_in = info_type.stand_in() if info_type else None
    context = PreflightContext(config=settings, data_info=stand_in, decisions=decisions)
    errors += [*_different_data(settings), *module_class_errors(settings), *size_errors(settings)]
    for group, given in GIVEN.items():
        if not settings.get(group) and group in ("data", "module"):
            continue  # the LightningModule has its own loaders, or is the model
        arguments = without_interval(settings[group]) if group == "scheduler" else settings[group]
        wrong = find_errors(arguments, group, dict.fromkeys(given))
        errors += [*wrong, *_own_checks(settings[group], group, context, has_errors=bool(wrong))]
        errors += [] if wrong else _try_to_build(group, context)
    built: dict[str, Any] = {}
    for name, callback in settings["callbacks"].items():
        errors += _callback_errors(f"callbacks.{name}", callback, context, built)
    errors += callback_errors(
        built, _monitor(settings), has_logger=any(isinstance(each, Mapping) for each in settings["logger"].values())
    )
    for name, logger in settings["logger"].items():
        errors += _logger_errors(f"logger.{name}", logger)
    return [*errors, *found]


def info_type_of(settings: Mapping[str, Any], group: str) -> type[DataInfo] | None:
    """Returns the type of data info that the module or the data set has; None where its class names none."""
    group = module_group(settings) if group == "module" else group
    try:
        found = getattr(find_target(str(settings[group].get("_target_", "")), group), "info_type", None)
    except InputError:
        return None
    return found if isinstance(found, type) and issubclass(found, DataInfo) else None


def _different_data(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error where the module learns from another kind of data than the data set holds."""
    expected, offered = info_type_of(settings, "module"), info_type_of(settings, "data")
    if expected is None or offered is None or issubclass(offered, expected):
        return
    models, data = _options_for("model", offered), _options_for("data", expected)
    yield InputError(
        f"model and data are of different tasks: the model expects {expected.content}, the data set holds {offered.content}; "
        f"for this data take {models}; for this model take {data}"
    )


def _options_for(group: str, info_type: type[DataInfo]) -> str:
    """Returns the options of a group in conf/ that work with this type of data info, as they are typed."""
    fitting = []
    for option in options_of(group):
        content = yaml.safe_load((locations.CONF / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
        modules = [next(iter(entry.values())) for entry in content.get("defaults", ()) if isinstance(entry, Mapping)]
        files = [locations.CONF / "module" / f"{module}.yaml" for module in modules] if group == "model" else []
        nodes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()] or [content]
        if any(info_type_of({group: node}, group) is info_type for node in nodes):
            fitting.append(f"{group}={option}")
    return ", ".join(fitting) or f"another {group}"


def _own_checks(
    settings: Mapping[str, Any], path: str, context: PreflightContext, *, has_errors: bool = False
) -> list[InputError]:
    """Returns what a class says about its own settings; with `has_errors` some of them may have wrong types."""
    try:
        own = getattr(find_target(str(settings["_target_"]), path), "preflight", None)
        problems = [] if own is None else list(own(settings, context))
    except Exception:
        if not has_errors:
            raise
        return []
    return [problem if isinstance(problem, InputError) else InputError(str(problem)) for problem in problems]


def _try_to_build(group: str, context: PreflightContext) -> list[InputError]:
    """Returns what the objects of a group refuse: those that cost nothing are built, the net without memory for its weights."""
    settings = context.config[group]
    if group == "trainer":
        errors = [*argument_errors(settings), *trainer_errors(settings)]
        return errors or list(trial_errors(settings, context.decisions))
    if group == "model":
        return _net_errors(settings, context)
    tries: dict[str, Callable[[], Any]] = {
        "data": lambda: _try_data(settings, context.config["seed"]),
        "module": lambda: _try_module(settings, context),
        "optimizer": lambda: _try_optimizer(settings),
        "scheduler": lambda: try_scheduler(settings),
        "checkpoint": lambda: build(settings, group, {"folder": Path(), "interruption": None}),
    }
    return collect_errors(group, tries[group])


def _try_data(settings: Mapping[str, Any], seed: int) -> None:
    """Builds the data module, unless that needs values of the data, or builds data sets, as those of others may."""
    found = find_target(str(settings["_target_"]), "data")
    is_engines = isinstance(found, type) and issubclass(found, DataModule)
    if not any(late_names(settings)) and (is_engines or not any(dict(targets(list(settings.values()))))):
        taken = parameters_of(str(settings["_target_"]), "data")
        build(settings, "data", {"seed": seed} if "seed" in taken else {})


def collect_errors(path: str, act: Callable[[], Any]) -> list[InputError]:
    """Returns the errors that a call raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act()
    except InputError as error:
        return list(error.errors)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:  # of torch and Lightning, for users
        return [InputError(f"{path}: {str(error).splitlines()[0]}", key=path)]
    return []


def _net_errors(settings: Mapping[str, Any], context: PreflightContext) -> list[InputError]:
    """Returns what a net that is built from data info says about its settings; others may do anything while they are built."""
    target = find_target(str(settings["_target_"]), "model")
    if context.data_info is None or hasattr(target, "preflight") or "data_info" not in parameters_of(settings["_target_"]):
        return []
    built: list[Any] = []
    with torch.device("meta"):
        errors = collect_errors("model", lambda: built.append(build(settings, "model", {"data_info": context.data_info})))
    size = sum(each.numel() * each.element_size() for net in built for each in getattr(net, "parameters", list)())
    if size > (available := psutil.virtual_memory().total):
        message = f"model: its weights take {size / 1e9:,.0f} GB, and this machine has {available / 1e9:,.0f} GB of memory"
        return [InputError(f"{message}; lower its sizes", key="model")]
    return [error for error in errors if error.key and error.key.startswith("model.")]  # not of data that are only made up


def build_stand_in(settings: Mapping[str, Any], context: PreflightContext) -> Any:
    """Returns the LightningModule around no net; None where its settings need more of the data than its class makes up."""
    if context.data_info is None or not all(hasattr(context.data_info, name) for name in late_names(settings)):
        return None
    settings = resolve_late(settings, (context.data_info,))
    given = {"data_info": context.data_info, "net": torch.nn.Identity(), "make_optimizer": None, "scheduler": None}
    return build(settings, "module", given)


def _try_module(settings: Mapping[str, Any], context: PreflightContext) -> None:
    """Builds the LightningModule around no net and lets it check the names of its metrics, if it offers that."""
    if (metric_names := getattr(build_stand_in(settings, context), "metric_names", None)) is not None:
        metric_names()


def _try_optimizer(settings: Mapping[str, Any]) -> None:
    make = build(settings, "optimizer")
    read_rates(make)
    make([torch.nn.Parameter(torch.zeros(2, 2))])


def metrics_of(context: PreflightContext) -> list[str]:
    """Returns the names of the validation metrics that the module logs; an empty list where they are unknown."""
    # what is wrong with its settings is reported elsewhere
    bare = {key: value for key, value in module_settings(context.config).items() if key in ("_target_", "metrics")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = build_stand_in(bare, context)
            return [] if module is None else [f"val/{name}" for name in module.metric_names()]
    except Exception:  # of a user's own module, which need not know its metrics before it has seen data
        return []


def _monitor(settings: Mapping[str, Any]) -> Monitor | None:
    """Returns what the module of a config monitors, as far as its class says so."""
    try:
        found = monitor_of(find_target(str(module_settings(settings).get("_target_", "")), module_group(settings)), settings)
    except InputError:
        return None
    return found if found is None or found.mode in MODES else None


def _callback_errors(path: str, settings: Any, context: PreflightContext, built: dict[str, Any]) -> list[InputError]:
    """Returns what is wrong with a callback; one of Lightning, the engine or the project is built, and added to `built`."""
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        return [InputError(f"{path}={settings!r} must hold a _target_ and its arguments; ~{path} leaves it out", key=path)]
    try:
        taken = parameters_of(str(settings["_target_"]), path)
    except InputError as error:
        return [error]
    # a callback that gets no metric to monitor is left out later
    known_monitor = _monitor(context.config) or Monitor("val/loss", "min")
    defaults = {"monitor": known_monitor.metric, "mode": known_monitor.mode}
    given = {key: value for key, value in defaults.items() if key in taken and key not in settings}
    errors = find_errors(settings, path, given)
    monitor, known = settings.get("monitor"), metrics_of(context)
    if "monitor" in taken and isinstance(monitor, str) and known and monitor not in known:
        message = f"{path}.monitor={monitor}: the module logs no such metric. {nearest(monitor, known)}"
        suggestions = [f"{path}.monitor={near}" for near in closest(monitor, known)]
        errors.append(InputError(message, key=f"{path}.monitor", suggestions=suggestions))
    if str(monitor or "").startswith("val") and context.config["trainer"].get("limit_val_batches") == 0:
        message = f"{path}.monitor={monitor}: trainer.limit_val_batches=0 turns validation off; ~{path} leaves it out"
        errors.append(InputError(message, key=f"{path}.monitor"))
    if not errors:
        errors += _own_checks(settings, path, context)
    if not errors and str(settings["_target_"]).startswith(("lightning.", "arclight.", "project.")):
        errors += collect_errors(path, lambda: built.update({path: build(settings, path, given)}))
    return errors


def _logger_errors(path: str, settings: Any) -> list[InputError]:
    if not isinstance(settings, Mapping):
        return [InputError(f"{path}={settings!r} must hold a _target_ and its arguments; logger=none logs nothing", key=path)]
    return find_errors(settings, path, dict.fromkeys(OFFERED))


def _hardware_errors(
    settings: Mapping[str, Any], hardware_info: hardware.HardwareInfo
) -> tuple[list[InputError], dict[str, hardware.Decision]]:
    """Returns requested settings that this machine does not have, and the plan; an empty plan where there are such."""
    errors = collect_errors("hardware", lambda: hardware.check_settings(settings["hardware"]))
    requested = {group: dict(settings[group]) for group in ("trainer", "hardware")}
    for _ in range(sum(map(len, requested.values()))):
        try:
            decisions = plan_hardware({**settings, **requested}, hardware_info)
        except InputError as error:
            errors.append(error)
            # the plan stops at its first error: once more without this setting
            group, _, name = (error.key or "").partition(".")
            if requested.get(group, {}).pop(name, None) is None:
                return errors, {}
        else:
            return [*errors, *_contradictions(settings, decisions)], decisions if not errors else {}
    return errors, {}


def _contradictions(settings: Mapping[str, Any], decisions: Mapping[str, hardware.Decision]) -> Iterator[InputError]:
    """Yields settings that are right each by itself."""
    data, trainer = settings["data"], settings["trainer"]
    world_size = hardware.count_devices(decisions["devices"].value) * decisions["num_nodes"].value
    sizes = (data.get("max_batch_per_device"), trainer.get("accumulate_grad_batches"))
    yield from collect_errors("data", lambda: hardware.accumulation_steps(data.get("batch_size"), world_size, *sizes))
    is_fp16 = decisions["precision"].value in ("16-mixed", "16-true")
    if is_fp16 and settings["optimizer"].get("fused") and trainer.get("gradient_clip_val"):
        message = (
            f"optimizer.fused=true excludes trainer.gradient_clip_val={trainer['gradient_clip_val']} with precision=fp16, "
            "whose scaler Lightning cannot combine with both; leave optimizer.fused out"
        )
        yield InputError(message, key="optimizer.fused")
