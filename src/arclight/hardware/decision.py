"""A setting with the reason for its value, and what the decisions of a plan depend on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arclight.errors import InputError, closest, nearest

if TYPE_CHECKING:
    from arclight.hardware.hardware_info import Gpu, HardwareInfo


@dataclass(frozen=True)
class Decision:
    """The value of a setting and the reason for it; `is_user_set` when the user has set it."""

    value: Any
    reason: str
    is_user_set: bool = False


@dataclass(frozen=True)
class Target:
    """The devices of a run and what is known about it; `num_steps` is the number of optimizer steps, None if unknown."""

    hardware_info: HardwareInfo
    requested: Mapping[str, Any]
    accelerator: str
    gpus: tuple[Gpu, ...]  # those that the run uses
    num_local: int  # processes on this node
    world_size: int
    has_fixed_shapes: bool
    num_steps: int | None
    accumulation_steps: int


def user_value(requested: Mapping[str, Any], name: str) -> Any:
    """Returns the value that the user set; None for "auto", null and a missing key."""
    value = requested.get(name)
    return None if value == "auto" else value


def user_decision(value: Any, remark: str = "") -> Decision:
    """Returns the decision for a value that the user set; the remark names what it costs."""
    return Decision(value, f"set by user; {remark}" if remark else "set by user", is_user_set=True)


def unknown_value(key: str, value: Any, kind: str, known: Collection[str]) -> InputError:
    """Returns the error for a value of `key` that is not one of the known ones, which are each a `kind` of Lightning."""
    message = f"{key}={value} is not {kind} of Lightning. {nearest(str(value), known)}"
    return InputError(message, key=key, suggestions=[f"{key}={near}" for near in closest(str(value), known)])


def user_bool(requested: Mapping[str, Any], name: str) -> bool | None:
    """Returns a switch that the user set, None for auto; raises InputError for anything but true, false and auto."""
    value = user_value(requested, name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"hardware.{name}={value} must be true, false or auto", key=f"hardware.{name}")
    return value


def user_count(requested: Mapping[str, Any], name: str, group: str = "hardware") -> int | None:
    """Returns a count that the user set, None for auto; raises InputError for anything but whole numbers of 1 or more."""
    value = user_value(requested, name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{group}.{name}={value} must be a whole number of 1 or more, or auto", key=f"{group}.{name}")
    return value
