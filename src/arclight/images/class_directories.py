"""Finds image files in one directory per class, with or without directories of splits around them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from arclight.errors import InputError, nearest

_log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LAYOUTS = "expected <root>/<class>/*, or <root>/train/<class>/* with val/ and test/ of the same form beside train/"


def find_images(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Returns image files by split and class, all sorted; only the split "train" where `root` holds the class directories.

    Raises:
        InputError: when `root` has neither layout, or two directories for one split.
    """
    if not root.is_dir():
        raise InputError(f"data.root={root} is not a directory; {LAYOUTS}", key="data.root")
    splits: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        found = [name for name in names if (root / name).is_dir() and _subdirectories(root / name)]
        if len(found) > 1:
            raise InputError(f"data.root={root} has {' and '.join(found)}; keep one of them", key="data.root")
        if found:
            splits[split] = root / found[0]
    if not splits:
        splits = {"train": root}
    elif others := {path.name for path in _subdirectories(root)} - {path.name for path in splits.values()}:
        _log.warning("directories in %s that are not a split are ignored: %s", root, ", ".join(sorted(others)))
    return {split: {path.name: _images_in(path) for path in _subdirectories(parent)} for split, parent in splits.items()}


def _subdirectories(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(directory: Path) -> list[Path]:
    """Returns image files at any depth; hidden files are skipped, other files are skipped with a warning."""
    paths, visited = [], set()
    for parent, inner, names in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:  # links can be circular
            inner.clear()
            continue
        visited.add(real)
        paths += [Path(parent, name) for name in names if name[0] != "."]
    images = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
    if others := sorted(set(paths) - set(images)):
        _log.warning(
            "%d files in %s are ignored, as they are not named as images, such as %s", len(others), directory, others[0].name
        )
    return images


def check_classes(found: dict[str, dict[str, list[Path]]], classes: tuple[str, ...], *, root: Path | None) -> None:
    """Raises InputError with everything that is wrong with the class directories of all splits."""
    errors = []
    if len(classes) < 2:
        seen = f"only the class '{classes[0]}'" if classes else "no class directories"
        errors.append(f"there must be 2 classes or more, found {seen}; {LAYOUTS}")
    for split, by_class in found.items():
        errors += [f"{split}: the class directory '{label}' has no image" for label, paths in by_class.items() if not paths]
        unknown = [label for label in by_class if label not in classes]
        errors += [f"{split}: the class '{label}' does not occur in training. {nearest(label, classes)}" for label in unknown]
    if errors:
        raise InputError("\n  ".join([f"data.root={root}:", *errors]))
