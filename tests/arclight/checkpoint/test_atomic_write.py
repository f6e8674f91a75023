"""Writes are atomic, previous checkpoints are kept, and every kind of damage is detected."""

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
    find_previous,
    keep_previous,
    previous_names,
    replace,
    save_with_torch,
    sha256,
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


def test_an_intact_file_passes(file: Path) -> None:
    check(file)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_flipped_bits_are_detected(file: Path) -> None:
    """Every third byte, padding included: an error is raised, or the content is unchanged."""
    whole = file.read_bytes()
    other = file.with_name("other.ckpt")
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        other.write_bytes(damaged)
        if atomic_write._find_damage.__wrapped__(other, place, len(damaged)):
            continue
        try:
            assert same(torch.load(other, weights_only=True)), place
        except (RuntimeError, ValueError):  # torch reports it
            continue


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: content[: len(content) // 2], "it is damaged or truncated"),
        (lambda content: content[:-1], "it is damaged or truncated"),
        (lambda content: content.replace(b"weight", b"height"), r"its entry .*data.pkl has changed since it was written"),
        (lambda content: b"no zip at all", "it is damaged or truncated"),
    ],
    ids=["empty", "half", "last byte missing", "changed", "not a zip"],
)
def test_damage_is_reported(damage: Any, message: str, file: Path) -> None:
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=rf"last.ckpt cannot be read as a checkpoint: {message}"):
        check(file)


def test_bytes_are_counted() -> None:
    assert count_bytes(CONTENT) == 64 * 4
    assert count_bytes({"sharded": torch.empty(9, device="meta")}) == 0  # its rows are in another file


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last.ckpt cannot be read as a checkpoint: No such file"):
        check(tmp_path / "last.ckpt")


def test_the_checksum_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-4
    path.write_bytes(b"abd!")
    assert sha256(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def leave(path: Path, text: str, as_directory: bool) -> None:
    if as_directory:
        path.mkdir(exist_ok=True)
        path = path / "contents.pt"
    path.unlink(missing_ok=True)  # a new file each time, as `write` leaves it
    path.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: (path / "contents.pt" if path.is_dir() else path).read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("as_directory", [False, True], ids=["file", "directory"])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_as_many_are_kept_as_configured(keep: int, as_directory: bool, tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    for epoch in range(6):
        keep_previous(last, keep)
        leave(last, str(epoch), as_directory)
    names = ["last.ckpt", "last.previous.ckpt", "last.previous_2.ckpt", "last.previous_3.ckpt"][:keep]
    assert texts(tmp_path) == {name: str(5 - age) for age, name in enumerate(names)}
    assert [path.name for path in find_previous(last)] == names[1:]
    keep_previous(last, 1)  # fewer from now on
    assert texts(tmp_path) == {"last.ckpt": "5"}


def test_previous_checkpoints_are_sorted_beyond_nine(tmp_path: Path) -> None:
    names = previous_names(tmp_path / "last.ckpt", 13)
    for name in reversed(names):
        name.touch()
    assert find_previous(tmp_path / "last.ckpt") == names


@pytest.mark.parametrize("as_directory", [False, True], ids=["file", "directory"])
def test_a_file_system_without_links_keeps_previous_checkpoints(
    as_directory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(atomic_write.os, "link", refuse)
    last = tmp_path / "last.ckpt"
    for epoch in range(3):
        keep_previous(last, 2)
        leave(last, str(epoch), as_directory)
    assert texts(tmp_path) == {"last.ckpt": "2", "last.previous.ckpt": "1"}


def test_a_file_replaces_a_directory_and_the_reverse(tmp_path: Path) -> None:
    last, new = tmp_path / "last.ckpt", tmp_path / "new"
    for number, as_directory in enumerate((False, True, False)):
        leave(last if not number else new, str(number), as_directory)
        if number:
            replace(last, new)
        assert texts(tmp_path) == {"last.ckpt": str(number)}


@pytest.mark.parametrize(
    "save",
    [
        lambda part: part.write_bytes(b"x" * 2**20),
        functools.partial(save_with_torch, {"weight": torch.zeros(2**20)}),
    ],
    ids=["bytes", "torch"],
)
def test_a_full_disk_leaves_the_previous_file(save: Any, file: Path) -> None:
    """The new file is written to /dev/full, Linux's device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")

    def onto_a_full_disk(part: Path) -> None:
        part.unlink()
        part.symlink_to("/dev/full")
        save(part)

    with pytest.raises(
        NotWrittenError, match=r"last.ckpt could not be written: it needs 0.0 MB, and .* MB are free there \(.*"
    ):
        write(file, onto_a_full_disk, num_bytes=7)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_reported_by_safetensors(file: Path) -> None:
    def save(part: Path) -> None:
        part.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(NotWrittenError, match=r"last.ckpt could not be written: .*No space left on device"):
        write(file, save, num_bytes=7)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_what_a_killed_process_left_is_removed_and_a_link_is_not_followed(file: Path) -> None:
    precious = file.with_name("precious")
    precious.write_text("old")
    file.with_name("last.ckpt.0123.part").symlink_to(precious)
    file.with_name("last.ckpt.4567.part").write_bytes(b"half")
    write(file, lambda part: part.write_bytes(b"new"), num_bytes=3)
    assert file.read_bytes() == b"new"
    assert precious.read_text() == "old"
    assert sorted(path.name for path in file.parent.iterdir()) == ["last.ckpt", "precious"]


def test_missing_space_is_reported_before_writing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_500_000}))
    with pytest.raises(NotWrittenError, match="it needs 4.0 MB, and 1.5 MB are free there"):
        write(file, os.unlink, num_bytes=4_000_000)


def test_a_path_that_cannot_exist_is_reported(file: Path) -> None:
    with pytest.raises(NotWrittenError, match=r"last.ckpt/best.ckpt could not be written \(.*(Not a directory|File exists)"):
        write(file / "best.ckpt", os.unlink, num_bytes=1)


def test_other_errors_are_raised_unchanged(file: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        write(file, lambda part: (_ for _ in ()).throw(RuntimeError("a bug")), num_bytes=1)
    assert same(torch.load(file, weights_only=True))
