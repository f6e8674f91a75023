"""Sources are found and read; what cannot be read is reported. Covers arclight.inference.predictor, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.inference.pipeline import expand, read_bytes


def test_paths_are_expanded(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "notes.md", ".hidden.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def names(path: Path) -> list[str]:
        return [str(found.relative_to(tmp_path)) for found in expand(path, (".png",))]

    assert names(tmp_path) == ["a.PNG", "b.png", "deep/c.png"]
    assert names(tmp_path / "*.png") == ["b.png"]
    assert names(tmp_path / "**" / "*.png") == ["b.png", "deep/c.png"]
    assert names(tmp_path / "notes.md") == ["notes.md"]
    assert names(tmp_path / "missing.png") == ["missing.png"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"123")
    for name, problem in {"empty": "0 bytes", "large": "more than", "none": "no such file", ".": "not a file"}.items():
        with pytest.raises(ValueError, match=problem):
            read_bytes(tmp_path / name, 2)
    assert read_bytes(tmp_path / "large", 3) == b"123"
