from __future__ import annotations

from pathlib import Path

import pytest

from arclight.errors import InputError
from arclight.images.folder_splits import draw_splits, only_split

FOUND = {"train": {"cat": [Path(f"cat/{number}.png") for number in range(6)], "dog": [Path("dog/0.png"), Path("dog/1.png")]}}


def test_splits_that_are_not_found_are_drawn_from_training() -> None:
    files = draw_splits(FOUND, ("cat", "dog"), validation=0.25, test=1, seed=0, stratify=False)
    assert {name: len(one.paths) for name, one in files.items()} == {"train": 5, "test": 1, "val": 2}
    paths = [path for one in files.values() for path in one.paths]
    assert sorted(paths) == sorted(path for by_class in FOUND["train"].values() for path in by_class)
    for one in files.values():
        assert [path.parent.name for path in one.paths] == [("cat", "dog")[label] for label in one.labels]


def test_splits_that_are_found_stay_as_they_are() -> None:
    files = draw_splits({**FOUND, "val": {"dog": [Path("x")]}}, ("cat", "dog"), validation=0.5, test=2, seed=0, stratify=False)
    assert files["val"] == ([Path("x")], [1])
    assert draw_splits({"test": {"dog": [Path("x")]}}, ("cat", "dog"), validation=1, test=1, seed=0, stratify=False) == {
        "test": ([Path("x")], [1])
    }


def test_only_the_evaluated_split_is_kept() -> None:
    assert only_split(FOUND, "val", Path("root")) == {"val": FOUND["train"]}
    both = {**FOUND, "test": {"cat": [Path("x")]}}
    assert only_split(both, "test", Path("root")) == {"test": both["test"]}
    with pytest.raises(InputError, match="data.root=root has train/, test/ but no val/; name a directory of classes"):
        only_split(both, "val", Path("root"))
