"""A file is in place whole or not at all, the ones before stay as told, and no damage goes unseen."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from arclight.checkpoint import atomic_write
from arclight.checkpoint.atomic_write import (
    NotWrittenError,
    check,
    count_bytes,
    digest,
    earlier,
    keep_earlier,
    names_of_earlier,
    save_with_torch,
    take_the_place,
    write,
)
from arclight.errors import InputError

CONTENT = {"state_dict": {"weight": torch.arange(64.0)}, "epoch": 3, "nested": {"list": [1, 2.5, "text"]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "last.ckpt", functools.partial(save_with_torch, CONTENT), num_bytes=count_bytes(CONTENT))
    return tmp_path / "last.ckpt"


def same(content: Any) -> bool:
    return torch.equal(content["state_dict"]["weight"], torch.arange(64.0)) and content["nested"] == CONTENT["nested"]


def test_a_whole_file_is_whole(file: Path) -> None:
    check(file)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_no_flipped_bit_goes_unseen(file: Path) -> None:
    """Every third byte, padding included: it is told, or the content is the same all the same."""
    whole = file.read_bytes()
    other = file.with_name("other.ckpt")
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        other.write_bytes(damaged)
        if atomic_write._problem_of.__wrapped__(other, place, len(damaged)):
            continue
        try:
            assert same(torch.load(other, weights_only=True)), place
        except (RuntimeError, ValueError):  # torch told it
            continue


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: content[: len(content) // 2], "it is damaged or cut short"),
        (lambda content: content[:-1], "it is damaged or cut short"),
        (lambda content: content.replace(b"weight", b"height"), r"its part .*data.pkl has changed since it was written"),
        (lambda content: b"no zip at all", "it is damaged or cut short"),
    ],
    ids=["empty", "half", "last byte lacks", "changed", "not one"],
)
def test_damage_is_told(damage: Any, told: str, file: Path) -> None:
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=rf"last.ckpt cannot be read as a checkpoint: {told}"):
        check(file)


def test_bytes_are_counted() -> None:
    assert count_bytes(CONTENT) == 64 * 4
    assert count_bytes({"spread": torch.empty(9, device="meta")}) == 0  # its rows lie elsewhere


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last.ckpt cannot be read as a checkpoint: No such file"):
        check(tmp_path / "last.ckpt")


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"abc")
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-4
    path.write_bytes(b"abd!")
    assert digest(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def leave(path: Path, text: str, as_folder: bool) -> None:
    if as_folder:
        path.mkdir(exist_ok=True)
        path = path / "contents.pt"
    path.unlink(missing_ok=True)  # a new file each time, as `write` leaves it
    path.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: (path / "contents.pt" if path.is_dir() else path).read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_so_many_stay(keep: int, as_folder: bool, tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    for epoch in range(6):
        keep_earlier(last, keep)
        leave(last, str(epoch), as_folder)
    names = ["last.ckpt", "last.previous.ckpt", "last.previous_2.ckpt", "last.previous_3.ckpt"][:keep]
    assert texts(tmp_path) == {name: str(5 - age) for age, name in enumerate(names)}
    assert [path.name for path in earlier(last)] == names[1:]
    keep_earlier(last, 1)  # fewer are wanted now
    assert texts(tmp_path) == {"last.ckpt": "5"}


def test_the_ones_before_are_in_order_beyond_nine(tmp_path: Path) -> None:
    names = names_of_earlier(tmp_path / "last.ckpt", 13)
    for name in reversed(names):
        name.touch()
    assert earlier(tmp_path / "last.ckpt") == names


@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_a_file_system_without_links_keeps_them_too(as_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(atomic_write.os, "link", refuse)
    last = tmp_path / "last.ckpt"
    for epoch in range(3):
        keep_earlier(last, 2)
        leave(last, str(epoch), as_folder)
    assert texts(tmp_path) == {"last.ckpt": "2", "last.previous.ckpt": "1"}


def test_a_file_takes_the_place_of_a_folder_and_back(tmp_path: Path) -> None:
    last, new = tmp_path / "last.ckpt", tmp_path / "new"
    for number, as_folder in enumerate((False, True, False)):
        leave(last if not number else new, str(number), as_folder)
        if number:
            take_the_place(new, last)
        assert texts(tmp_path) == {"last.ckpt": str(number)}


@pytest.mark.parametrize(
    "save",
    [
        lambda part: part.write_bytes(b"x" * 2**20),
        functools.partial(save_with_torch, {"weight": torch.zeros(2**20)}),
    ],
    ids=["bytes", "torch"],
)
def test_what_the_disk_does_not_take_leaves_the_old_one(save: Any, file: Path) -> None:
    """Linux' device that is always full stands where the new file is written to."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")

    def onto_a_full_disk(part: Path) -> None:
        part.symlink_to("/dev/full")
        save(part)

    with pytest.raises(
        NotWrittenError, match=r"last.ckpt could not be written: it takes 0.0 MB, and .* MB are free there \(.*"
    ):
        write(file, onto_a_full_disk, num_bytes=7)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_what_safetensors_says_of_a_full_disk_is_told_as_well(file: Path) -> None:
    def save(part: Path) -> None:
        part.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(NotWrittenError, match=r"last.ckpt could not be written: .*No space left on device"):
        write(file, save, num_bytes=7)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_no_room_is_told_before_anything_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_500_000}))
    with pytest.raises(NotWrittenError, match="it takes 4.0 MB, and 1.5 MB are free there"):
        write(file, os.unlink, num_bytes=4_000_000)


def test_a_place_where_nothing_can_be_is_told(file: Path) -> None:
    with pytest.raises(NotWrittenError, match=r"last.ckpt/best.ckpt could not be written \(.*(Not a directory|File exists)"):
        write(file / "best.ckpt", os.unlink, num_bytes=1)


def test_another_error_is_not_taken_for_the_disks(file: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        write(file, lambda part: (_ for _ in ()).throw(RuntimeError("a bug")), num_bytes=1)
    assert same(torch.load(file, weights_only=True))
