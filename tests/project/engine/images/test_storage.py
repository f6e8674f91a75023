"""Where images are stored, from numbers alone: 1,000 images of 10x10 pixels take 300,000 bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.images.storage import StorageChoice, cache_directory, cache_obstacle, check_storage, choose_storage


def chosen(free: int, **settings: Any) -> StorageChoice:
    given = {"fraction": 0.5, "num_processes": 1, "storage": "auto", "cache": Path("cache"), "obstacle": "", **settings}
    return choose_storage((1000, 3, 10, 10), free=free, **given)


@pytest.mark.parametrize(
    ("free", "settings", "is_streamed", "is_cached"),
    [
        (600_000, {}, False, True),
        (599_999, {}, True, True),
        (600_000, {"num_processes": 4}, False, True),  # they share the file
        (10**9, {"storage": "disk"}, True, True),
        (600_000, {"storage": "memory"}, False, True),
        (600_000, {"obstacle": "no room"}, False, False),
        (2_400_000, {"obstacle": "no room", "num_processes": 4}, False, False),
    ],
)
def test_memory_where_it_holds_them_else_disk(free: int, settings: dict[str, Any], is_streamed: bool, is_cached: bool) -> None:
    assert chosen(free, **settings)[:2] == (is_streamed, is_cached)


def test_the_choice_is_explained_with_its_numbers() -> None:
    assert chosen(400_000_000_000).reason == "images are in memory (0.00 GB), decoded and cached in cache for the next start"
    assert chosen(600_000, obstacle="no room").reason.endswith("decoded and not cached for the next start: no room")
    assert chosen(10**9, storage="disk").reason.startswith(
        "images are read from disk batch by batch, decoded and cached in cache"
    )
    settings = {"fraction": 0.5, "num_processes": 2, "storage": "auto", "cache": Path("cache"), "obstacle": ""}
    assert choose_storage((10**6, 3, 100, 100), free=40 * 10**9, **settings).reason == (
        "1,000,000 images of 100x100 pixels take 30.00 GB of memory, and data.memory_share=0.5 of the 40.00 GB free allows "
        "20.00 GB: they are read from disk batch by batch, decoded and cached in cache for the next start; "
        "data.image_size=81 would fit in memory"
    )


@pytest.mark.parametrize(
    ("free", "settings", "message"),
    [
        (
            599_999,
            {"storage": "memory"},
            r"data\.storage=memory: 1,000 images of 10x10 pixels take .*; data\.image_size=9 would fit",
        ),
        (10, {"storage": "memory"}, r"free some memory, or data\.storage=disk reads them from disk"),
        (599_999, {"obstacle": "no room"}, r"reading them from disk needs space in data\.cache=DIRECTORY \(no room\)"),
        (2_399_999, {"obstacle": "x", "num_processes": 4}, r"in each of 4 processes take .* data\.image_size=9 would fit"),
        (
            10**9,
            {"storage": "disk", "obstacle": "no room"},
            r"data\.storage=disk: decoded images cannot be cached: no room; choose .*data\.cache",
        ),
    ],
)
def test_images_that_fit_nowhere_are_an_error(free: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(free, **settings)


@pytest.mark.parametrize(
    ("storage", "cache", "message"),
    [
        ("ram", "auto", r"data\.storage=ram must be auto, memory or disk"),
        ("auto", "", r"data\.cache is empty; it must be auto, none or a directory"),
        ("disk", "none", r"data\.storage=disk reads decoded images from data\.cache, which is none; set data\.cache=auto"),
    ],
)
def test_invalid_settings_are_an_error(storage: str, cache: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_storage(storage, cache)


def test_free_space_is_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "a" / "b"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    assert cache_obstacle(wanted, 10**9 - 1) == ""
    assert cache_obstacle(wanted, 2 * 10**9) == f"{wanted} needs 2.00 GB and 1.00 GB are free there"
    assert cache_obstacle(wanted, 2 * 10**9, already=10**9 + 1) == ""  # another process has started to write them
    assert cache_obstacle(None, 1) == "data.cache=none"
    assert not wanted.parent.exists()


def test_a_place_that_cannot_be_written_is_an_obstacle_unless_all_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert cache_obstacle(tmp_path / "cache", 1) == f"{tmp_path} cannot be written"
    assert cache_obstacle(tmp_path / "cache", 0) == ""
    (tmp_path / "file").touch()
    monkeypatch.undo()
    assert cache_obstacle(tmp_path / "file", 1) == f"{tmp_path}/file cannot be written"


def test_images_of_this_user_are_cached_beside_them(tmp_path: Path) -> None:
    assert cache_directory(tmp_path, "auto") == tmp_path / ".arclight"
    (tmp_path / ".arclight").mkdir()
    assert cache_directory(tmp_path, "auto") == tmp_path / ".arclight"
    assert cache_directory(tmp_path / "missing", "auto") == tmp_path / "missing" / ".arclight"
    assert cache_directory(tmp_path, str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


@pytest.mark.parametrize("kind", ["link", "dangling link", "root of another user"])
def test_images_of_others_are_cached_in_the_directory_of_this_user(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setattr("sys.platform", "linux")
    root = tmp_path / "root"
    root.mkdir()
    if kind == "root of another user":
        uid = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: uid)
    else:
        (root / ".arclight").symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    assert cache_directory(root, "auto") == tmp_path / "own" / "arclight" / "images"
