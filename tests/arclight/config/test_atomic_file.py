"""Atomic writes: the old content or the new one, never through a link and never in place of a device; careful reads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from arclight.config import atomic_file
from arclight.config.atomic_file import create_part, parts_of, read_file, read_json, replacement, write_atomically


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ("Grüße\r\n", "Grüße\r\n".encode()),
        (b"\x00\xff", b"\x00\xff"),
        ('{"a\ud800": 1}', rb'{"a\ud800": 1}'),  # half of a surrogate pair, which UTF-8 cannot encode
    ],
)
def test_replaces_a_file_with_text_or_bytes(data: str | bytes, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    write_atomically(path, data)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.txt"]


def test_json_with_a_lone_surrogate_is_read_back(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", '{"a\ud800": 1}')
    assert read_json(tmp_path / "a.json") == {"a\ud800": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_an_error_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(path: Path) -> Path:
        part = path.with_name("file.txt.x.part")
        part.symlink_to("/dev/full")
        return part

    monkeypatch.setattr(atomic_file, "create_part", on_full_disk)
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("old")
    for name, target in (("link", "precious"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        write_atomically(tmp_path / name, "new")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "old"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_there_under_the_temporary_name_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / "precious").write_text("old")
    (tmp_path / "a.guessed.part").symlink_to("precious")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "old"


def test_temporary_names_are_random_and_modes_those_of_any_new_file(tmp_path: Path) -> None:
    first, second = create_part(tmp_path / "a"), create_part(tmp_path / "a")
    assert first != second
    (tmp_path / "usual").touch()
    assert stat.S_IMODE(first.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert {*parts_of(tmp_path / "a")} == {first, second}
    assert parts_of(tmp_path / "b") == []


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to a device", "directory"])
def test_only_regular_files_are_replaced_and_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if kind == "directory":
        path.mkdir()
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe") if kind.startswith("link") else (tmp_path / "pipe").rename(path)
    before = path.lstat()
    with pytest.raises(OSError, match=r"Is a directory|Not a regular file"), replacement(path):
        raise AssertionError("nothing may be written")
    with pytest.raises(OSError, match=r"Is a directory|Not a regular file"):
        read_file(path)  # would block, or not end
    assert read_json(path) == {}
    assert path.lstat() == before
    assert not parts_of(path)
