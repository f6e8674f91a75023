"""Finds image files in one directory per class, with or without directories of splits around them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from arclight.console.terminal import printable
from arclight.errors import InputError, nearest

log = logging.getLogger(__name__)

Layout = Literal["auto", "splits", "classes"]

SUFFIXES = (*(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),)
UNREADABLE = (".heic", ".heif", ".raw", ".svg")  # images, but of formats that cannot be read
SPLIT_NAMES = {  # in lower case, without seg_ before and set, data or images after
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SKIPPED = {"__macosx", "@eadir", "lost+found"}  # directories, besides hidden ones, that tools leave behind
LAYOUTS = "expected <root>/<class>/*, or <root>/train/<class>/* with val/ and test/ of the same form beside train/"
MAX_HASHED = 2_000_000_000  # bytes of files that are compared with others of their size


def find_images(root: Path, layout: Layout = "auto") -> dict[str, dict[str, list[Path]]]:
    """Returns image files by split and class, all sorted; only the split "train" where `root` holds the class directories.

    Args:
        root: directory of the images.
        layout: what the directories in it are; "auto" goes by their names.

    Raises:
        InputError: when `root` has neither layout, two directories for one split, the same directories in every class, or a
            name that is not UTF-8.
    """
    if not root.is_dir():
        raise InputError(f"data.root={root} is not a directory; {LAYOUTS}", key="data.root")
    inner = _subdirectories(root)
    splits = {} if layout == "classes" else _splits(root, inner, layout)
    if layout == "splits" and not splits:
        raise InputError(f"data.layout=splits, but data.root={root} has no directory of a split; {LAYOUTS}", key="data.layout")
    if splits:
        if others := {path.name for path in inner} - {path.name for path in splits.values()}:
            log.warning("directories in %s that are not a split are ignored: %s", root, ", ".join(sorted(others)))
    else:
        splits = {"train": root}
        if layout == "auto":
            _check_classes_differ(root, inner)
    for parent in {root, *splits.values()}:
        if loose := sorted(path.name for path in parent.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()):
            example = ascii(loose[0]).strip("'")
            log.warning("%d images directly in %s belong to no class and are ignored, such as %s", len(loose), parent, example)
    return {split: _classes_in(parent) for split, parent in splits.items()}


def split_of(name: str) -> str | None:
    """Returns the split that a directory is named for: "train", "val" or "test"."""
    plain = re.sub(r"[ _-]+", "_", name.lower()).removeprefix("seg_")
    return SPLIT_NAMES.get(re.sub(r"_?(set|data|images|split)$", "", plain))


def _splits(root: Path, inner: Sequence[Path], layout: Layout) -> dict[str, Path]:
    """Returns the directories of splits; none where the directories are classes."""
    named: dict[str, list[Path]] = defaultdict(list)
    for path in inner:
        if (split := split_of(path.name)) and _subdirectories(path):
            named[split].append(path)
    for paths in named.values():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise InputError(f"data.root={root} has {names}; keep one of them", key="data.root")
    siblings = [path for path in inner if not split_of(path.name) and any(True for _ in _files_in(path))]
    if layout == "auto" and len(named) == 1 and siblings:
        (only,) = (path.name for paths in named.values() for path in paths)
        log.warning("%s is read as a class, like %s beside it; set data.layout=splits if it is a split", only, siblings[0].name)
        return {}
    return {split: named[split][0] for split in ("train", "val", "test") if split in named}


def _check_classes_differ(root: Path, inner: Sequence[Path]) -> None:
    """Raises InputError when every class has the same directories in it: then these are probably the classes."""
    below = [{path.name for path in _subdirectories(path)} for path in inner]
    if len(below) > 1 and below[0] and all(names == below[0] for names in below):
        shown = ", ".join(sorted(below[0])[:5])
        raise InputError(
            f"data.root={root}: every directory in it has the same directories ({shown}). If these are the classes, name "
            "those around them train, val and test; if not, set data.layout=classes",
            key="data.root",
        )


def _classes_in(directory: Path) -> dict[str, list[Path]]:
    """Returns the images of each class directory; names are in Unicode's composed form, whatever wrote them."""
    return {unicodedata.normalize("NFC", path.name): _images_in(path) for path in _subdirectories(directory)}


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name.lower() in SKIPPED


def _subdirectories(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.iterdir() if path.is_dir() and not _is_skipped(path.name))
    for path in found:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            name = os.fsencode(path.name)
            raise InputError(f"{directory}: the name of the directory {name!r} is not UTF-8; rename it") from None
    return found


def _files_in(directory: Path) -> Iterator[Path]:
    """Yields the files at any depth, in directories and of names that are not hidden."""
    visited = set()
    for parent, inner, names in os.walk(directory, followlinks=True):
        inner[:] = [name for name in inner if not _is_skipped(name)]
        if (real := os.path.realpath(parent)) in visited:  # links can be circular
            inner.clear()
            continue
        visited.add(real)
        yield from (Path(parent, name) for name in names if name[0] != ".")


def _images_in(directory: Path) -> list[Path]:
    """Returns image files at any depth; hidden files are skipped, broken links and other files are skipped with a warning."""
    paths = set(_files_in(directory))
    images = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
    if others := sorted(paths - set(images)):
        formats = sorted({path.suffix.lower() for path in others} & set(UNREADABLE))
        convert = f"; convert {', '.join(formats)} to JPEG or PNG" if formats else ""
        log.warning(
            "%d files in %s are ignored, as they are not named as images, such as %s%s",
            *(len(others), directory, ascii(others[0].name).strip("'"), convert),
        )
    if broken := [path for path in images if path.is_symlink() and not path.exists()]:
        log.warning(
            "%d links in %s lead nowhere and are ignored, such as %s", len(broken), directory, printable(broken[0].name)
        )
    return [path for path in images if path not in broken]


def check_classes(found: dict[str, dict[str, list[Path]]], classes: tuple[str, ...], *, root: Path | None) -> None:
    """Raises InputError with everything that is wrong with the class directories of all splits.

    A class without an image in validation or test is only logged.
    """
    errors = []
    if len(classes) < 2:
        seen = f"only the class '{classes[0]}'" if classes else "no class directories"
        below = (
            [] if root is None or len(classes) != 1 or not (root / classes[0]).is_dir() else _subdirectories(root / classes[0])
        )
        meant = f". Try: data.root={root}/{classes[0]}" if len(below) > 1 and root else ""
        errors.append(f"there must be 2 classes or more, found {seen}; {LAYOUTS}{meant}")
    for split, by_class in found.items():
        empty = [label for label in sorted({*by_class, *(classes if split != "train" else ())}) if not by_class.get(label)]
        if split == "train":
            errors += [f"{split}: the class directory '{label}' has no image" for label in empty]
        elif empty:
            log.warning("%s: no image of %s", split, ", ".join(empty[:5]))
        unknown = [label for label in by_class if label not in classes]
        errors += [f"{split}: the class '{label}' does not occur in training. {nearest(label, classes)}" for label in unknown]
    if errors:
        raise InputError("\n  ".join([f"data.root={root}:", *errors]))


def report_duplicates(files: Mapping[str, Sequence[Path]]) -> None:
    """Logs how many images of validation and test are also in an earlier split, byte for byte."""
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split in ("train", "val", "test"):
        for path in files.get(split, ()):
            if path.is_file():  # reading a pipe would not end
                by_size[path.stat().st_size].append((split, path))
    rest = MAX_HASHED
    copies: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for size, group in by_size.items():
        if len({split for split, _ in group}) < 2:
            continue
        rest -= size * len(group)
        if rest < 0:
            log.info("not all files were compared with those of other splits")
            break
        first: dict[bytes, tuple[str, Path]] = {}
        for split, path in group:
            earlier, other = first.setdefault(hashlib.blake2b(path.read_bytes()).digest(), (split, path))
            if earlier != split:
                copies[earlier, split].append((other, path))
    for (earlier, split), pairs in copies.items():
        log.warning(
            "%d images of %s are also in %s, such as %s and %s: scores on them say little",
            *(len(pairs), split, earlier, printable(str(pairs[0][1])), printable(str(pairs[0][0]))),
        )
