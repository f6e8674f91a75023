"""Temporary directories of killed processes are removed by the next start, those in use are not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from filelock import FileLock

from arclight.runs.temporary import LOCK, YOUNG_S, remove_abandoned, temporary_directory


def make_old(folder: Path) -> None:
    os.utime(folder, (time.time() - 2 * YOUNG_S,) * 2)


def test_a_directory_is_removed_at_the_end(tmp_path: Path) -> None:
    with temporary_directory("processes", tmp_path) as folder:
        (folder / "log").write_text("x")
        assert folder.name.startswith("arclight-processes-")
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_only_abandoned_ones_are_removed(tmp_path: Path) -> None:
    names = ("arclight-killed", "arclight-empty", "arclight-used", "arclight-young", "arclight-unlocked", "others-killed")
    folders = {name: tmp_path / name for name in names}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "arclight-empty":
            (folder / "file").touch()
        if name not in ("arclight-empty", "arclight-unlocked"):
            (folder / LOCK).touch()
        if name != "arclight-young":
            make_old(folder)
    with FileLock(folders["arclight-used"] / LOCK):
        make_old(folders["arclight-used"])
        remove_abandoned(tmp_path)
        left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {"arclight-used", "arclight-young", "arclight-unlocked", "others-killed"}
    assert not (tmp_path / "arclight-killed").exists()
