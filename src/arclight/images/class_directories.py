"""Image files in folders that name their classes, with or without folders of splits around them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from arclight.errors import InputError, nearest

_log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LAYOUTS = "lay images out as <root>/<class>/*, or as <root>/train/<class>/* with val/ and test/ of the same form beside train/"


def find_images(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Image files by split and class, all sorted; the one split "train" where `root` holds the class folders themselves.

    Raises:
        InputError: when `root` has neither layout, or two folders for one split.
    """
    if not root.is_dir():
        raise InputError(f"data.root={root} is no folder; {LAYOUTS}")
    splits: dict[str, Path] = {}
    for split_name, names in SPLIT_FOLDERS.items():
        there = [name for name in names if (root / name).is_dir() and _subfolders(root / name)]
        if len(there) > 1:
            raise InputError(f"data.root={root} has {' and '.join(there)}; keep one of them")
        if there:
            splits[split_name] = root / there[0]
    if not splits:
        splits = {"train": root}
    elif others := {folder.name for folder in _subfolders(root)} - {folder.name for folder in splits.values()}:
        _log.warning("folders in %s that are no split and are left out: %s", root, ", ".join(sorted(others)))
    return {name: {sub.name: _images_in(sub) for sub in _subfolders(folder)} for name, folder in splits.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    """Image files at any depth; hidden files are passed over, others that are no images by their name are told."""
    paths, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # links can lead in circles
            inner.clear()
            continue
        seen.add(real)
        paths += [Path(place, name) for name in names if name[0] != "."]
    images = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
    if others := sorted(set(paths) - set(images)):
        _log.warning("%d files left out of %s, no images by their name, such as %s", len(others), folder, others[0].name)
    return images


def check_classes(found: dict[str, dict[str, list[Path]]], classes: tuple[str, ...], *, root: Path | None) -> None:
    """Raises InputError with all that is wrong with the class folders of all splits."""
    wrong = []
    if len(classes) < 2:
        seen = f"only the class '{classes[0]}'" if classes else "no class folders"
        wrong.append(f"there must be 2 classes or more, here is {seen}; {LAYOUTS}")
    for name, by_class in found.items():
        wrong += [f"{name}: the class folder '{label}' has no image" for label, paths in by_class.items() if not paths]
        unknown = [label for label in by_class if label not in classes]
        wrong += [f"{name}: the class '{label}' is none to train on. {nearest(label, classes)}" for label in unknown]
    if wrong:
        raise InputError("\n  ".join([f"data.root={root}:", *wrong]))
