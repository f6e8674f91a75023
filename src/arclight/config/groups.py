"""Which config groups describe the LightningModule and its net, and values that are known only once the data is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from arclight.errors import InputError, nearest

LATE = re.compile(r"\$\{data_info:\s*([A-Za-z]\w*)\s*\}")


def module_group(settings: Mapping[str, Any]) -> str:
    """Returns the group that describes the LightningModule: "module", or "model" where its option is one by itself."""
    return "module" if settings.get("module") else "model"


def module_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings of the LightningModule."""
    found: Mapping[str, Any] = settings[module_group(settings)]
    return found


def is_late(value: Any) -> bool:
    """Returns whether a value is known only once the data is there."""
    return isinstance(value, str) and LATE.fullmatch(value.strip()) is not None


def late_names(node: Any) -> Iterator[str]:
    """Yields the names of data info that a config refers to."""
    if isinstance(node, Mapping):
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from late_names(value)
    elif isinstance(node, str):
        yield from LATE.findall(node)


def resolve_late(node: Any, sources: tuple[Any, ...], path: str = "") -> Any:
    """Returns a config with values of the data in the place of `${data_info:NAME}`.

    Args:
        node: the config, or a part of it.
        sources: objects whose attributes are the values, the first that has it counts: data info, then the data module.
        path: the key of the node, for errors.

    Raises:
        InputError: when none of them has the attribute.
    """
    if isinstance(node, Mapping):
        return {key: resolve_late(value, sources, f"{path}.{key}" if path else str(key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [resolve_late(value, sources, f"{path}.{place}") for place, value in enumerate(node)]
    if not isinstance(node, str) or not (names := LATE.findall(node)):
        return node
    for name in names:
        if not any(hasattr(source, name) for source in sources):
            known = sorted({key for source in sources if source is not None for key in vars(source) if not key.startswith("_")})
            raise InputError(f"{path}={node}: the data has no '{name}'. {nearest(name, known)}", key=path)
    values = {name: next(getattr(source, name) for source in sources if hasattr(source, name)) for name in names}
    if is_late(node):
        return values[names[0]]
    return LATE.sub(lambda found: str(values[found[1]]), node)
