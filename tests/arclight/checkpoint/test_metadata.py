"""What a checkpoint says of itself is validated: one message that names file and field for whatever else is there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.checkpoint.metadata import MAX_DEPTH, metadata_of, require_tree
from arclight.errors import InputError

GROUPS = ("data", "model", "optimizer", "scheduler", "trainer")
GOOD = {
    "version": 2,
    "settings": {"seed": 0, **{group: {"_target_": "x", "sizes": [1, 2.5, None, True]} for group in GROUPS}},
    "options": {"data": "a", "model": "b"},
    "data_info": None,
    "blueprint": {},
}
PATH = Path("a.ckpt")


def changed(key: str, value: Any) -> dict[str, Any]:
    """Returns GOOD with a value at a dotted key, or without it for `del`."""
    whole: dict[str, Any] = copy.deepcopy(GOOD)
    node = whole
    *parents, name = key.split(".")
    for parent in parents:
        node = node[parent]
    if value == "del":
        del node[name]
    else:
        node[name] = value
    return {"arclight": whole}


def test_a_good_one_is_returned_and_more_keys_do_no_harm() -> None:
    assert metadata_of({"arclight": GOOD}, PATH) == GOOD
    assert metadata_of(changed("settings.module", None), PATH)["settings"]["module"] is None
    assert metadata_of(changed("later", {"a": 1}), PATH)["later"] == {"a": 1}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("settings", "del", "settings missing"),
        ("settings", [1], r"settings=\[1\] must be a mapping"),
        ("settings.model", 5, r"settings\.model=5 must be a mapping"),
        ("settings.model", "del", r"settings\.model=None must be a mapping"),
        ("settings.seed", "0", r"settings\.seed='0' must be a whole number"),
        ("settings.module", [], r"settings\.module=\[\] must be a mapping or null"),
        ("settings.hardware", 1, r"settings\.hardware=1 must be a mapping or null"),
        ("settings.data", {1: 2}, r"settings\.data=\{1: 2\} must be a mapping"),
        ("settings.data", {(1,): 2}, r"settings\.data has the key \(1,\), which is neither text nor a whole number"),
        ("settings.data.x", torch.ones(1), r"settings\.data\.x is a Tensor; only text, numbers, lists and mappings"),
        ("settings.data.x", b"x", r"settings\.data\.x is a bytes; only"),
        ("settings.data.x", 10**400, r"settings\.data\.x is a number of more than 18 digits"),
        ("options.data", None, r"options\.data=None must be text"),
        ("options", "x", r"options='x' must be a mapping"),
        ("data_info", "x", r"data_info='x' must be a mapping or null"),
        ("blueprint", "del", "blueprint missing"),
        ("blueprint", "x" * 1000, r"blueprint='x{299}\.\.\. must be a mapping"),
    ],
)
def test_everything_else_is_one_message(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^a\.ckpt is an incomplete or corrupt checkpoint: {message}"):
        metadata_of(changed(key, value), PATH)


@pytest.mark.parametrize("version", [3, "2", [2], 10**17])
def test_an_unknown_version_is_reported(version: Any) -> None:
    with pytest.raises(InputError, match=r"a\.ckpt has checkpoint version .*; this arclight reads version 2"):
        metadata_of(changed("version", version), PATH)


def loop() -> Any:
    found: dict[str, Any] = {"a": [1]}
    found["a"].append(found)
    return found


def bomb() -> Any:
    found: list[Any] = ["x"]
    for _ in range(MAX_DEPTH - 2):
        found = [found, found]  # the same list twice: a few bytes in a file
    return found


def deep() -> Any:
    found: list[Any] = []
    for _ in range(MAX_DEPTH):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (loop, r"^a\.1\.a.* contains itself"),
        (bomb, "more than 100,000 values"),
        (deep, "or is nested more than 30 levels deep"),
    ],
)
def test_what_contains_itself_or_grows_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_tree(make())
