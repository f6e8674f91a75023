"""What `CheckpointContents` adds to a checkpoint, validated when it is read: it may come from anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arclight.config.instantiate import check_type
from arclight.config.renamed import rename_checkpoint
from arclight.errors import InputError, shown

VERSION, FIRST_VERSION = 2, 1  # the first is that of arclight 0.1
MAX_DEPTH, MAX_VALUES = 30, 100_000  # of nested settings
LARGEST = 10**18  # of a whole number: near the largest that tensors hold


MAPPING = dict[str, Any]
SCHEMA: dict[str, Any] = {  # of the metadata, besides the version; a key whose value may be None may be missing
    "settings": MAPPING,
    "settings.seed": int,
    **dict.fromkeys((f"settings.{group}" for group in ("data", "model", "optimizer", "scheduler", "trainer")), MAPPING),
    **dict.fromkeys(("settings.module", "settings.hardware"), MAPPING | None),
    "options": MAPPING,
    "options.data": str,
    "options.model": str,
    "data_info": MAPPING | None,
    "blueprint": MAPPING,
}


def metadata_of(contents: Any, path: Path, *, is_resumed: bool = False) -> dict[str, Any]:
    """Returns what `CheckpointContents` added to a checkpoint, with present names; raises InputError if that cannot be used."""
    metadata = contents.get("arclight") if isinstance(contents, dict) else None
    if not isinstance(metadata, dict) or "version" not in metadata:
        raise InputError(f"{path} is not a checkpoint of arclight: it holds no config and no data info")
    try:
        require_tree(metadata)
    except InputError as error:
        raise corrupt(path, str(error)) from error
    if metadata["version"] == FIRST_VERSION and is_resumed:
        raise InputError(
            f"{path} was written by arclight 0.1, whose runs this version evaluates and reports but cannot resume; finish it "
            "with arclight 0.1, or train a new one without resume"
        )
    if metadata["version"] == FIRST_VERSION:
        metadata = {"version": VERSION, **rename_checkpoint(metadata)}
    if metadata["version"] != VERSION:
        raise InputError(
            f"{path} has checkpoint version {shown(metadata['version'])}; this arclight reads version {VERSION}, and "
            f"{FIRST_VERSION} to evaluate; open it with the arclight that wrote it"
        )
    if missing := [key for key in SCHEMA if "." not in key and key not in metadata]:
        raise corrupt(path, f"{' and '.join(missing)} missing")
    for key, kind in SCHEMA.items():
        if is_resumed and "." in key:  # the config of a run that is resumed is composed again
            continue
        value: Any = metadata
        for part in key.split("."):
            value = value.get(part)
        if errors := check_type(value, kind, key):
            raise corrupt(path, str(errors[0]))
    return metadata


def corrupt(path: Path, problem: str) -> InputError:
    """Returns the error for a checkpoint that holds something else than what `CheckpointContents` writes."""
    return InputError(f"{path} is an incomplete or corrupt checkpoint: {problem}")


def require_tree(node: Any) -> None:
    """Raises InputError, naming the key, unless nested values are what a config holds: text, numbers, truth values and null.

    A checkpoint can also hold tensors in their place, or a mapping that contains itself, which whoever walks through it would
    follow for ever.
    """
    waiting: list[tuple[str, Any, int]] = [("", node, 0)]
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        path, value, depth = waiting.pop()
        if isinstance(value, dict | list | tuple):
            if depth == MAX_DEPTH:
                raise InputError(f"{path[:MAX_DEPTH]}... contains itself, or is nested more than {MAX_DEPTH} levels deep")
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                if type(key) not in (str, int):
                    raise InputError(f"{path} has the key {shown(key)}, which is neither text nor a whole number", key=path)
                waiting.append((f"{path}.{str(key)[:MAX_DEPTH]}".lstrip("."), inner, depth + 1))
        elif type(value) not in (type(None), bool, int, float, str):
            raise InputError(
                f"{path} is a {type(value).__name__}; only text, numbers, lists and mappings are allowed", key=path
            )
        elif type(value) is int and abs(value) > LARGEST:
            raise InputError(f"{path} is a number of more than 18 digits", key=path)
    raise InputError(f"the config and the data info have more than {MAX_VALUES:,} values")
