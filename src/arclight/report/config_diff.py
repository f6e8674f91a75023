"""The settings of a run that differ from the defaults of its data and model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from arclight.config.compose import CONFIG_ERRORS, compose_with_hydra, flatten
from arclight.config.redaction import without_secrets
from arclight.errors import InputError

UNSET = "-"
IGNORED = ("name", "resume", "preflight", "logger.")  # they do not change what is trained


class Change(NamedTuple):
    """A setting, its default in conf/ and its value in the run; "-" where one of them is missing."""

    key: str
    default: Any
    value: Any


def changed_settings(settings: Mapping[str, Any], *, data: str, model: str) -> list[Change]:
    """Returns the settings in which a run differs from conf/ for its data and model; none when these options are unknown."""
    defaults = default_settings(data, model)
    if not defaults:
        return []
    before, now = dict(flatten(without_secrets(defaults))), dict(flatten(settings))
    changes = [Change(key, before.get(key, UNSET), now.get(key, UNSET)) for key in now | before]
    return [change for change in changes if change.default != change.value and not change.key.startswith(IGNORED)]


def default_settings(data: str, model: str) -> dict[str, Any]:
    """Returns what conf/ composes for these two options; empty where it has no such options, or no train.yaml."""
    if not (data.isidentifier() and model.isidentifier()):
        return {}
    with contextlib.suppress(InputError, *CONFIG_ERRORS), compose_with_hydra([f"data={data}", f"model={model}"]) as config:
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        plain: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=False)
        return dict(plain)
    return {}
