"""Where images live, told from numbers alone: 1,000 images of 10x10 pixels take 300,000 bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.images.storage import Place, check, choose, obstacle


def chosen(free: int, **settings: Any) -> Place:
    given = {"share": 0.5, "num_processes": 1, "wish": "auto", "folder": Path("cache"), "obstacle": "", **settings}
    return choose(1000, 10, free=free, **given)


@pytest.mark.parametrize(
    ("free", "settings", "is_streamed", "is_kept"),
    [
        (600_000, {}, False, True),
        (599_999, {}, True, True),
        (600_000, {"num_processes": 4}, False, True),  # they share the file
        (10**9, {"wish": "disk"}, True, True),
        (600_000, {"wish": "memory"}, False, True),
        (600_000, {"obstacle": "no room"}, False, False),
        (2_400_000, {"obstacle": "no room", "num_processes": 4}, False, False),
    ],
)
def test_memory_where_it_holds_them_else_disk(free: int, settings: dict[str, Any], is_streamed: bool, is_kept: bool) -> None:
    assert chosen(free, **settings)[:2] == (is_streamed, is_kept)


def test_what_was_chosen_is_told_with_its_numbers() -> None:
    assert chosen(400_000_000_000).told == "images are in memory (0.00 GB), decoded and kept in cache for the next start"
    assert chosen(600_000, obstacle="no room").told.endswith("decoded and not kept for the next start: no room")
    assert chosen(10**9, wish="disk").told.startswith("images are read from disk as they are wanted, decoded and kept in cache")
    place = choose(10**6, 100, free=40 * 10**9, share=0.5, num_processes=2, wish="auto", folder=Path("cache"), obstacle="")
    assert place.told == (
        "1,000,000 images of 100x100 pixels take 30.00 GB of memory, and data.memory_share=0.5 of the 40.00 GB free allows "
        "20.00 GB: they are read from disk as they are wanted, decoded and kept in cache for the next start; "
        "data.image_size=81 would fit in memory"
    )


@pytest.mark.parametrize(
    ("free", "settings", "told"),
    [
        (
            599_999,
            {"wish": "memory"},
            r"data\.storage=memory: 1,000 images of 10x10 pixels take .*; data\.image_size=9 would fit",
        ),
        (10, {"wish": "memory"}, r"free some memory, and data\.storage=disk reads them from disk"),
        (599_999, {"obstacle": "no room"}, r"reading them from disk wants data\.cache=FOLDER with room for them \(no room\)"),
        (2_399_999, {"obstacle": "x", "num_processes": 4}, r"in each of 4 processes take .* data\.image_size=9 would fit"),
        (
            10**9,
            {"wish": "disk", "obstacle": "no room"},
            r"data\.storage=disk: decoded images cannot be kept: no room; data\.cache",
        ),
    ],
)
def test_images_that_fit_nowhere_are_an_error(free: int, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        chosen(free, **settings)


@pytest.mark.parametrize(
    ("storage", "cache", "told"),
    [
        ("ram", "auto", r"data\.storage=ram must be auto, memory or disk"),
        ("auto", "", r"data\.cache is empty; it must be auto, none or a folder"),
        ("disk", "none", r"data\.storage=disk reads decoded images from data\.cache, which is none; take data\.cache=auto"),
    ],
)
def test_settings_that_say_nothing_are_an_error(storage: str, cache: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check(storage, cache)


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "a" / "b"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    assert obstacle(wanted, 10**9 - 1) == ""
    assert obstacle(wanted, 2 * 10**9) == f"{wanted} wants 2.00 GB and 1.00 GB are free there"
    assert obstacle(wanted, 2 * 10**9, already=10**9 + 1) == ""  # another process has begun to write them
    assert obstacle(None, 1) == "data.cache=none"
    assert not wanted.parent.exists()


def test_a_place_that_cannot_be_written_is_an_obstacle_unless_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert obstacle(tmp_path / "cache", 1) == f"{tmp_path} cannot be written"
    assert obstacle(tmp_path / "cache", 0) == ""
    (tmp_path / "file").touch()
    monkeypatch.undo()
    assert obstacle(tmp_path / "file", 1) == f"{tmp_path}/file cannot be written"
