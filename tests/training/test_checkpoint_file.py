"""A checkpoint file is in place whole or not at all, and no damage goes unseen."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.errors import InputError
from arclight.training import checkpoint_file
from arclight.training.checkpoint_file import CheckpointFiles, check, count_bytes

CONTENT = {"state_dict": {"weight": torch.arange(64.0)}, "epoch": 3, "nested": {"list": [1, 2.5, "text"]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    CheckpointFiles().save_checkpoint(CONTENT, tmp_path / "last.ckpt")
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
        if checkpoint_file._problem_of.__wrapped__(other, place, len(damaged)):
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


def test_the_one_before_is_kept_where_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CheckpointFiles(keep_previous=True)
    for epoch in range(3):
        files.save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
        files.save_checkpoint({"epoch": epoch}, tmp_path / "best.ckpt")
    assert {path.name: torch.load(path)["epoch"] for path in tmp_path.iterdir()} == {
        **{"last.ckpt": 2, "last.previous.ckpt": 1, "best.ckpt": 2},
    }

    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(checkpoint_file.os, "link", refuse)
    files.save_checkpoint({"epoch": 3}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.previous.ckpt")["epoch"] == 2


def test_weights_as_safetensors_by_choice(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    files = CheckpointFiles(safetensors=True)
    files.save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    files.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "best.safetensors", "last.ckpt"}
    assert torch.equal(load_file(tmp_path / "best.safetensors")["weight"], torch.arange(64.0))


def test_bytes_are_counted() -> None:
    assert count_bytes(CONTENT) == 64 * 4


LARGE = {"state_dict": {"weight": torch.zeros(1_000_000)}}


def test_a_full_disk_keeps_the_old_one_and_says_what_is_missing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint_file.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_500_000}))
    monkeypatch.setattr(logging.getLogger("arclight"), "propagate", True)
    CheckpointFiles().save_checkpoint(LARGE, file)
    assert "last.ckpt could not be written: it takes 4.1 MB, and 1.5 MB are free there; training goes on" in caplog.text
    assert same(torch.load(file, weights_only=True))
    with pytest.raises(InputError, match=r"best.ckpt could not be written: .* make room, then go on with resume=auto"):
        CheckpointFiles().save_checkpoint(LARGE, file.with_name("best.ckpt"))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode
    )
    if not mounted:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_while_it_is_written_to(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, file = CheckpointFiles(), small_disk / "last.ckpt"
    files.save_checkpoint(CONTENT, file)
    monkeypatch.setattr(checkpoint_file.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    files.save_checkpoint(LARGE, file)
    check(file)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]
    files.save_checkpoint({**CONTENT, "epoch": 4}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 4
