"""Single-file checkpoints: previous ones are kept, weights also as safetensors, and training survives a full disk."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.checkpoint import atomic_write
from arclight.checkpoint.atomic_write import check
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.errors import InputError

CONTENT = {"state_dict": {"weight": torch.arange(64.0)}, "epoch": 3, "nested": {"list": [1, 2.5, "text"]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    CheckpointFiles().save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def same(content: Any) -> bool:
    return torch.equal(content["state_dict"]["weight"], torch.arange(64.0)) and content["nested"] == CONTENT["nested"]


def test_previous_checkpoints_are_kept(tmp_path: Path) -> None:
    files = CheckpointFiles(keep=3)
    for epoch in range(4):
        files.save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
        files.save_checkpoint({"epoch": epoch}, tmp_path / "best.ckpt")
    assert {path.name: torch.load(path)["epoch"] for path in tmp_path.iterdir()} == {
        **{"last.ckpt": 3, "last.previous.ckpt": 2, "last.previous_2.ckpt": 1, "best.ckpt": 3},
    }


def test_weights_as_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    files = CheckpointFiles(safetensors=True)
    files.save_checkpoint(CONTENT, tmp_path / "best.ckpt")
    files.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "best.safetensors", "last.ckpt"}
    assert torch.equal(load_file(tmp_path / "best.safetensors")["weight"], torch.arange(64.0))


LARGE = {"state_dict": {"weight": torch.zeros(1_000_000)}}


def test_a_full_disk_keeps_the_previous_one_and_logs_the_missing_space(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(atomic_write.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_500_000}))
    monkeypatch.setattr(logging.getLogger("arclight"), "propagate", True)
    CheckpointFiles().save_checkpoint(LARGE, file)
    assert (
        "last.ckpt could not be written: it needs 4.1 MB, and 1.5 MB are free there; the previous one stays, and the next save"
        in caplog.text
    )
    assert same(torch.load(file, weights_only=True))
    with pytest.raises(InputError, match=r"best.ckpt could not be written: .* free some space, then resume with resume=auto"):
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


def test_a_disk_that_fills_up_during_a_write(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, file = CheckpointFiles(), small_disk / "last.ckpt"
    files.save_checkpoint(CONTENT, file)
    monkeypatch.setattr(atomic_write.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    files.save_checkpoint(LARGE, file)
    check(file)
    assert same(torch.load(file, weights_only=True))
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]
    files.save_checkpoint({**CONTENT, "epoch": 4}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 4
