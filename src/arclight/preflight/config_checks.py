"""Mistakes inside of a config: arguments of targets, ranges, and settings that do not go together."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from arclight import hardware
from arclight.config.hardware_plan import plan_hardware
from arclight.config.instantiate import build, find_errors, find_target, parameters_of
from arclight.errors import InputError, nearest
from arclight.hardware.plan import FOR_TRAINER, is_sharded
from arclight.images.info import ImageInfo
from arclight.interfaces import DataInfo
from arclight.modules.dropout import check_dropout
from arclight.optim.muon import Muon
from arclight.optim.param_groups import check_layer_decay, read_rates
from arclight.optim.schedulers import try_scheduler, without_interval
from arclight.preflight.ranges import trainer_errors
from arclight.text.info import TokenInfo
from arclight.text.random_encoder import check_bert_sizes

KINDS = {ImageInfo: "images", TokenInfo: "tagged text"}
# Facts of no data set, from which nothing is refused that real data would allow: settings are tried on them
STAND_INS: dict[type[DataInfo], DataInfo] = {
    ImageInfo: ImageInfo(channels=3, height=1024, width=1024, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3),
    TokenInfo: TokenInfo(labels=("O", "B-A", "I-A"), tokenizer="{}", vocab_size=8, pad_id=0, max_length=8),
}
GIVEN = {  # objects that YAML cannot hold, by the group whose target gets them
    "data": ("seed",),
    "model": ("data_info",),
    "module": ("data_info", "net", "make_optimizer", "scheduler"),
    "optimizer": (),
    "scheduler": (),
    "trainer": (),
    "checkpoint": ("folder", "interruption"),
}
KEY = re.compile(r"(?:trainer|hardware)\.(\w+)")


def check_config(settings: Mapping[str, Any], hardware_info: hardware.HardwareInfo) -> list[str]:
    """Everything that is wrong with a config, one message each."""
    errors: list[str] = []
    seed = settings["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        errors.append(f"seed={seed} must be a whole number from 0 to {2**32 - 1}")
        settings = {**settings, "seed": 0}
    # null is Lightning's own default, and the plan for the hardware judges what it chooses
    trainer = {
        key: value
        for key, value in settings["trainer"].items()
        if value is not None and (key not in FOR_TRAINER or isinstance(value, Mapping))
    }
    looked_at = {**settings, "trainer": trainer}
    plain = {**looked_at, "scheduler": without_interval(settings["scheduler"])}
    wrong = {group: find_errors(plain[group], group, dict.fromkeys(given)) for group, given in GIVEN.items()}
    errors += kinds_that_differ(settings)
    for group, found in wrong.items():
        errors += found or list(try_instantiate(group, looked_at))
    for name, chosen in settings["callbacks"].items():
        errors += callback_errors(f"callbacks.{name}", chosen, settings)
    for name, chosen in settings["logger"].items():
        errors += tracker_errors(f"logger.{name}", chosen)
    return [*errors, *hardware_errors(settings, hardware_info)]


def kinds_that_differ(settings: Mapping[str, Any]) -> Iterator[str]:
    """Tells a model that learns from another kind of data than the data set holds."""
    wanted, offered = spec_type_of(settings, "module"), spec_type_of(settings, "data")
    if wanted in KINDS and offered in KINDS and wanted is not offered:
        data, model = ("data=cifar10", "model=bert_tagger") if wanted is ImageInfo else ("data=conll2003", "model=cnn")
        yield (
            f"model and data are of different tasks: the model learns from {KINDS[wanted]}, the data set holds "
            f"{KINDS[offered]}; take {model} for this data, or {data} for this model"
        )


def spec_type_of(settings: Mapping[str, Any], group: str) -> Any:
    """The kind of facts that a task or a data set has; None where that cannot be told."""
    try:
        return getattr(find_target(str(settings[group].get("_target_", "")), group), "info_type", None)
    except InputError:
        return None


def try_instantiate(group: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """What the objects of a group refuse: those that cost nothing are made, the net without its numbers."""
    chosen = settings[group]
    if group == "trainer":
        yield from trainer_errors(chosen)
    elif group == "data":
        yield from collect_errors(group, lambda: build(chosen, group, {"seed": settings["seed"]}))
    elif group == "model":
        yield from model_refusals(settings)
    elif group == "module":
        yield from collect_errors(group, lambda: stand_in_task(settings))
    elif group == "optimizer":
        yield from collect_errors(group, lambda: try_optimizer(chosen))
    elif group == "scheduler":
        yield from collect_errors(group, lambda: try_scheduler(chosen))
    elif group == "checkpoint" and str(chosen["_target_"]).startswith(("arclight.", "project.")):
        yield from collect_errors(group, lambda: build(chosen, group, {"folder": Path(), "interruption": None}))


def collect_errors(path: str, make: Callable[[], Any]) -> Iterator[str]:
    """The message of what `make` raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make()
    except InputError as error:
        yield str(error)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:  # of torch and Lightning, for users
        yield f"{path}: {str(error).splitlines()[0]}"


def model_refusals(settings: Mapping[str, Any]) -> Iterator[str]:
    """What a net of ours says to its settings; others may do anything while they are made."""
    chosen, data_info = settings["model"], STAND_INS.get(spec_type_of(settings, "module"))
    if "checkpoint" in chosen:
        shares = {name: chosen.get(name) for name in ("dropout", "attention_dropout")}
        yield from collect_errors("model", lambda: check_dropout(shares))
        if chosen["checkpoint"] is None:
            sizes = {name: chosen.get(name, 1) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")}
            yield from collect_errors("model", lambda: check_bert_sizes(**sizes))
    elif isinstance(data_info, ImageInfo) and str(chosen["_target_"]).startswith(("arclight.", "project.")):
        with torch.device("meta"):  # shapes without numbers
            yield from (
                told
                for told in collect_errors("model", lambda: build(chosen, "model", {"data_info": data_info}))
                if "model." in told
            )


def stand_in_task(settings: Mapping[str, Any]) -> Any:
    """The task of a config around no net; None where its kind of data is none of ours."""
    data_info = STAND_INS.get(spec_type_of(settings, "module"))
    if data_info is None:
        return None
    given = {"data_info": data_info, "net": torch.nn.Identity(), "make_optimizer": None, "scheduler": None}
    check_layer_decay(settings["module"].get("layer_decay", 1.0), find_target(settings["model"]["_target_"], "model"))
    if "channels_last" in settings["module"]:
        raise InputError("module.channels_last is set by the plan for the hardware; write hardware.channels_last instead")
    return build(settings["module"], "module", given)


def try_optimizer(chosen: Mapping[str, Any]) -> None:
    """Makes the optimizer over one parameter; raises what it raises."""
    make = build(chosen, "optimizer")
    read_rates(make)
    make([torch.nn.Parameter(torch.zeros(2, 2))])


def scores_of(settings: Mapping[str, Any]) -> list[str]:
    """The names under which the task logs its validation scores; none where that cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = {"_target_": settings["module"]["_target_"]}  # what is wrong with its settings is told elsewhere
            module = stand_in_task({**settings, "module": bare})
            return [] if module is None else [f"val/{name}" for name in module.compute_metrics().metrics]
    except Exception:  # of a task of the user's own, which need not score nothing
        return []


def callback_errors(path: str, chosen: Any, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with a callback: its arguments, and the score that it looks at."""
    if not isinstance(chosen, Mapping) or "_target_" not in chosen:
        return [f"{path}={chosen!r} must hold a _target_ and its arguments; ~{path} leaves it out"]
    try:
        taken = parameters_of(str(chosen["_target_"]), path)
    except InputError as error:
        return [str(error)]
    offered = {
        key: value for key, value in {"monitor": "val/loss", "mode": "min"}.items() if key in taken and key not in chosen
    }
    errors = find_errors(chosen, path, offered)
    monitor, known = chosen.get("monitor"), scores_of(settings)
    if "monitor" in taken and isinstance(monitor, str) and known and monitor not in known:
        errors.append(f"{path}.monitor={monitor}: the task has no such score. {nearest(monitor, known)}")
    if errors:
        return errors
    if str(chosen["_target_"]).startswith(("lightning.", "arclight.", "project.")):
        return list(collect_errors(path, lambda: build(chosen, path, offered)))
    return []


def tracker_errors(path: str, chosen: Any) -> list[str]:
    """What is wrong with a tracker's arguments."""
    if not isinstance(chosen, Mapping):
        return [f"{path}={chosen!r} must hold a _target_ and its arguments; logger=none tracks nothing"]
    return find_errors(chosen, path, dict.fromkeys(("run_dir", "name", "after_step")))


def hardware_errors(settings: Mapping[str, Any], hardware_info: hardware.HardwareInfo) -> list[str]:
    """Wishes that this machine cannot grant, and batches that do not divide over the processes."""
    errors: list[str] = []
    try:
        hardware.check_settings(settings["hardware"])
    except InputError as error:
        errors.append(str(error))
    left = {group: dict(settings[group]) for group in ("trainer", "hardware")}
    for _ in range(sum(map(len, left.values()))):
        try:
            decisions = plan_hardware({**settings, **left}, hardware_info)
        except InputError as error:
            errors.append(str(error))
            key = KEY.match(str(error))  # the plan stops at its first mistake: once more without that wish
            if key is None or not any(requested.pop(key[1], None) is not None for requested in left.values()):
                return errors
        else:
            return [*errors, *contradictions(settings, decisions)]
    return errors


def contradictions(settings: Mapping[str, Any], decisions: Mapping[str, hardware.Decision]) -> Iterator[str]:
    """Settings that are right each by itself."""
    data, trainer = settings["data"], settings["trainer"]
    world_size = hardware.count_devices(decisions["devices"].value) * decisions["num_nodes"].value
    sizes = (data.get("max_batch_per_device"), trainer.get("accumulate_grad_batches"))
    yield from collect_errors("data", lambda: hardware.accumulation_steps(data.get("batch_size"), world_size, *sizes))
    sharded = is_sharded(decisions["strategy"].value)
    optimizer = str(settings["optimizer"].get("_target_"))
    if sharded and optimizer == f"{Muon.__module__}.{Muon.__name__}":
        yield (
            "optimizer=muon needs whole filters on every process, and strategy=fsdp shards them; use strategy=ddp or "
            "optimizer=sgd"
        )
    is_fp16 = decisions["precision"].value in ("16-mixed", "16-true")
    if is_fp16 and settings["optimizer"].get("fused") and trainer.get("gradient_clip_val"):
        yield (
            f"optimizer.fused=true does not go with trainer.gradient_clip_val={trainer['gradient_clip_val']} and "
            "precision=fp16, whose scaler Lightning cannot combine with both; leave optimizer.fused out"
        )
