"""The image files of each split: found in directories, or drawn from those of training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from arclight.data.splits import num_held_out, split
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError

log = logging.getLogger(__name__)


class Files(NamedTuple):
    """One split before it is decoded."""

    paths: list[Path]
    labels: list[int]

    def pick(self, rows: Iterable[int]) -> Files:
        chosen = list(rows)
        return Files([self.paths[row] for row in chosen], [self.labels[row] for row in chosen])


def only_split(found: Mapping[str, dict[str, list[Path]]], name: str, root: Path) -> dict[str, dict[str, list[Path]]]:
    """Returns one split of files that no model was trained on: all of them, where there are no splits.

    Args:
        found: files by split and class, "train" where there are no splits.
        name: "val" or "test".
        root: of the files, for messages.

    Raises:
        InputError: when there are splits, but not this one.
    """
    if found.keys() == {"train"}:
        if is_main_process():
            log.warning("data.root=%s has no splits: all of its images are evaluated", root)
        return {name: found["train"]}
    if name not in found:
        message = f"data.root={root} has {'/, '.join(found)}/ but no {name}/; name a directory of classes in data.root"
        raise InputError(message, key="data.root")
    return {name: found[name]}


def draw_splits(
    found: Mapping[str, Mapping[str, Sequence[Path]]],
    classes: Sequence[str],
    *,
    validation: int | float,
    test: int | float,
    seed: int,
    stratify: bool,
) -> dict[str, Files]:
    """Returns the files of each split by row; validation and test that are not found are drawn from training.

    Args:
        found: files by split and class.
        classes: all names, by label.
        validation: count or fraction of the training files to draw.
        test: the same.
        seed: of the draws.
        stratify: whether each class gives the same fraction.

    Raises:
        InputError: when a count or fraction leaves a split empty.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    files = {
        name: Files(
            [path for paths in by_class.values() for path in paths],
            [numbers[label] for label, paths in by_class.items() for _ in paths],
        )
        for name, by_class in found.items()
    }
    if "train" not in files:
        return files
    num_train = len(files["train"].paths)
    for name, setting, size in (("test", "data.test", test), ("val", "data.validation", validation)):
        if num_train and name not in files:
            count = num_held_out(num_train, size, name=setting)  # a fraction is of all, whichever split is drawn first
            groups = files["train"].labels if stratify else None
            kept, drawn = split(len(files["train"].paths), count, seed, name=setting, groups=groups)
            files |= {"train": files["train"].pick(kept.tolist()), name: files["train"].pick(drawn.tolist())}
    missing = sorted(set(numbers.values()) - set(files["train"].labels))
    if missing and is_main_process():
        shown = ", ".join(classes[number] for number in missing[:5])
        log.warning("%d classes have no training image, such as %s; set data.stratify=true", len(missing), shown)
    return files
