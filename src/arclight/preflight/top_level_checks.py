"""Errors of keys at the top of the config, and overrides of groups that this LightningModule does not use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arclight.checkpoint.contents import NETS, OPTIMIZERS, SCHEDULERS
from arclight.config.compose import flatten
from arclight.config.groups import module_group
from arclight.config.instantiate import NAMED, parameters_of
from arclight.config.known_names import HYDRAS_OWN
from arclight.config.renamed import name_of
from arclight.errors import InputError, closest

FROM_ENGINE = {"data_info", "num_classes", "channels_last", *NETS}  # what a module is given, which nobody types
MODES = ("min", "max")  # of a monitored metric
LONGEST_TAG = 64  # characters. Source: W&B
# Names of settings that belong to an optimizer or a scheduler, in part
OF_OPTIMIZERS = ("lr", "learning_rate", "optim", "sched", "weight_decay", "momentum", "beta", "warmup")


def is_seed(value: Any) -> bool:
    """Returns whether a value can be a seed."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def top_level_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields what is wrong with `seed`, `test`, `tags`, `monitor` and `monitor_mode`."""
    seed, test, tags = settings["seed"], settings.get("test", True), settings.get("tags", [])
    if seed is not None and not is_seed(seed):
        message = f"seed={seed} must be a whole number from 0 to {2**32 - 1}, or null, which draws one"
        yield InputError(message, key="seed")
    if not isinstance(test, bool):
        yield InputError(f"test={test} must be true or false", key="test")
    monitor, mode = settings.get("monitor"), settings.get("monitor_mode")
    if monitor is not None and not isinstance(monitor, str):
        yield InputError(f"monitor={monitor} must be the name of a logged metric, none, or null", key="monitor")
    if mode not in (None, *MODES):
        near = [f"monitor_mode={each}" for each in closest(str(mode), MODES)]
        yield InputError(f"monitor_mode={mode} must be min, max or null", key="monitor_mode", suggestions=near)
    if isinstance(tags, str | int | float):
        yield InputError(f"tags={tags} must be a list: tags=[{tags}]", key="tags", suggestions=[f"tags=[{tags}]"])
    elif tags is not None:
        wrong = [tag for tag in tags if not isinstance(tag, str | int | float) or not 0 < len(str(tag)) <= LONGEST_TAG]
        if isinstance(tags, Mapping) or wrong:
            yield InputError(f"tags={tags} must be a list of texts of 1 to {LONGEST_TAG} characters", key="tags")


def unused_group_errors(settings: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[InputError]:
    """Yields an error for each override of `optimizer` or `scheduler` where the LightningModule takes no such object."""
    group = module_group(settings)
    node = settings[group]
    target = str(node.get("_target_", ""))
    try:
        parameters = parameters_of(target, group)
    except InputError:  # reported elsewhere
        return
    free = {name for name, parameter in parameters.items() if parameter.kind in NAMED} - node.keys()
    own = own_keys(node, group, free - FROM_ENGINE)
    for unused, names in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)):
        for override in overrides if not free & names else ():
            key = name_of(override)
            if not f"{key}.".startswith(f"{unused}."):
                continue
            where = f"Its own keys: {', '.join(own)}" if own else "It takes no settings: change its code"
            yield InputError(
                f"{override} has no effect: {target.rpartition('.')[2]} configures its own {unused}. {where}",
                key=key,
                suggestions=[name for name in own if name.rpartition(".")[2] == key.partition(".")[2]],
            )


def own_keys(node: Mapping[str, Any], group: str, free: set[str]) -> list[str]:
    """Returns the keys of a LightningModule for optimizer and scheduler, else all; those not in YAML with a plus."""
    known = [f"{group}.{key}" for key, _ in flatten(node) if key.rpartition(".")[2] not in HYDRAS_OWN]
    known += [f"+{group}.{key}" for key in sorted(free)]
    return [key for key in known if any(name in key for name in OF_OPTIMIZERS)] or known
