"""Data info as plain values that a checkpoint can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from arclight.config.instantiate import annotation_of, check_type, find_target
from arclight.errors import InputError, join_errors
from arclight.interfaces import DataInfo


def to_plain(info: DataInfo) -> dict[str, Any]:
    """Returns the data info as plain values, with the dotted name of its class under "kind"; `from_plain` is the inverse."""
    return {"kind": f"{type(info).__module__}.{type(info).__qualname__}", **asdict(info)}


def from_plain(plain: Mapping[str, Any]) -> DataInfo:
    """Returns the data info that `to_plain` wrote.

    Raises:
        InputError: when its class may not be built from a checkpoint or is not a `DataInfo`, or a field is missing, unknown, of
            the wrong type or out of range.
    """
    kind = find_target(str(plain.get("kind")), "data_info.kind", is_trusted=False)
    if not (isinstance(kind, type) and issubclass(kind, DataInfo)):
        raise InputError(f"data_info.kind: {plain['kind']} is not a DataInfo", key="data_info.kind")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items() if key != "kind"}
    parameters = {field.name: field for field in fields(kind) if field.init}
    required = {name for name, field in parameters.items() if field.default is MISSING and field.default_factory is MISSING}
    errors = [InputError(f"data_info.{name} is missing", key=f"data_info.{name}") for name in sorted(required - values.keys())]
    for name, value in values.items():
        if name in parameters:
            errors += check_type(value, annotation_of(kind.__init__, name), f"data_info.{name}")
        else:
            errors.append(InputError(f"data_info.{name}: {kind.__name__} has no such field", key=f"data_info.{name}"))
    if errors:
        raise join_errors(errors)
    return kind(**values)
