"""Data info as plain values that a checkpoint can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from arclight.config.instantiate import find_target
from arclight.errors import InputError
from arclight.interfaces import DataInfo


def to_plain(info: DataInfo) -> dict[str, Any]:
    """Returns the data info as plain values, with the dotted name of its class under "kind"; `from_plain` is the inverse."""
    return {"kind": f"{type(info).__module__}.{type(info).__qualname__}", **asdict(info)}


def from_plain(plain: Mapping[str, Any]) -> DataInfo:
    """Returns the data info that `to_plain` wrote.

    Raises:
        InputError: when its class may not be built from a checkpoint, or is not a `DataInfo`.
        TypeError: when a field is missing or unknown.
    """
    kind = find_target(str(plain["kind"]), "data info", is_trusted=False)
    if not (isinstance(kind, type) and issubclass(kind, DataInfo)):
        raise InputError(f"data info: {plain['kind']} is not a DataInfo")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items() if key != "kind"}
    return kind(**fields)
