"""What reaches the trackers is tested in test_trackers; here is what goes wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arclight.training.artifacts import confusion_rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"confusion": {"labels": ["a", "b"], "counts": [[3, 0], [1, 2]]}}, [["a", "a", 3], ["b", "a", 1], ["b", "b", 2]]),
        ({"confusion": None}, []),
        ([], []),
    ],
)
def test_confusion_rows(content: object, rows: list[object], tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(content))
    assert confusion_rows(tmp_path / "scores.json") == rows
