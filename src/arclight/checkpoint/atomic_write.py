"""Atomic writes of checkpoint files, the previous checkpoints that are kept, and detection of damaged files.

A single-file checkpoint is the zip that torch writes. It holds a CRC-32 for each entry, which `torch.load` ignores and `check`
verifies. A sharded checkpoint stores the SHA-256 of each of its files.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from arclight.config.atomic_file import parts_of, replacement
from arclight.errors import InputError, first_line

LAST = "last.ckpt"


class NotWrittenError(OSError):
    """A file could not be written; the previous content is still there."""


def write(file: Path, save: Callable[[Path], Any], *, num_bytes: int, before_replace: Callable[[], Any] | None = None) -> None:
    """Writes a file atomically: flushes it to the disk under a temporary name, then renames it.

    `save` writes the content to the path it is given; `before_replace` is called once the content is on the disk.

    Raises:
        NotWrittenError: when the disk refuses the content, or has less than `num_bytes` free.
    """
    problem = f"{file} could not be written"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in parts_of(file):  # one process writes a checkpoint at a time: they are of killed ones
            left.unlink()
        free = shutil.disk_usage(file.parent).free
        problem += f": it needs {num_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there"
        if free < num_bytes:
            raise NotWrittenError(problem)
        with replacement(file) as part:
            save(part)
            fsync(part)
            if before_replace is not None:
                before_replace()
        fsync(file.parent)
    except NotWrittenError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports a full disk as a RuntimeError that names its zip writer
        if isinstance(error, (OSError, SafetensorError)) or "inline_container" in str(error):
            raise NotWrittenError(f"{problem} ({first_line(error)})") from error
        raise


def save_with_torch(content: Any, part: Path) -> None:
    """Writes nested content with `torch.save`."""
    with part.open("wb") as stream:
        torch.save(content, stream)


def fsync(path: Path) -> None:
    """Flushes a file, or the names in a directory, to the disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file or directory if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace(path: Path, new: Path) -> None:
    """Replaces `path` by `new` where one is a file and the other a directory, which a rename alone cannot do."""
    old = path.with_name(f"{path.name}.replaced")
    remove(old)
    path.rename(old)
    new.rename(path)
    remove(old)


def previous_names(path: Path, keep: int) -> list[Path]:
    """Returns the names of previous checkpoints when `keep` are kept in all, newest first: last.previous.ckpt, _2, _3, ..."""
    return [
        path.with_name(f"{path.stem}.previous{f'_{number}' if number > 1 else ''}{path.suffix}") for number in range(1, keep)
    ]


def find_previous(path: Path) -> list[Path]:
    """Returns the previous checkpoints that exist, newest first."""
    return sorted(path.parent.glob(f"{path.stem}.previous*{path.suffix}"), key=lambda other: (len(other.name), other.name))


def keep_previous(path: Path, keep: int, *, exclude: frozenset[str] = frozenset()) -> None:
    """Links the checkpoint at `path` to the name of a previous one, and removes the oldest beyond `keep`.

    `path` itself keeps its name, so that a last checkpoint exists at every moment.

    `keep` counts the checkpoint that is about to be written, too; `exclude` names its files in the directory `path`.
    """
    names = previous_names(path, keep)
    for old in find_previous(path):
        if old not in names:
            remove(old)
    if not names or not path.exists():
        return
    copy = names[0].with_name(f"{names[0].name}.part")
    remove(copy)
    if path.is_dir():
        copy.mkdir()
        for file in path.iterdir():
            if file.name not in exclude and file.suffix != ".part":
                _link(file, copy / file.name, shutil.copyfile)
        fsync(copy)
    else:
        _link(path, copy, Path.replace)
    for newer, older in reversed(list(itertools.pairwise(names))):
        if newer.exists():
            remove(older)
            newer.replace(older)
    remove(names[0])
    copy.replace(names[0])


def _link(file: Path, name: Path, fallback: Callable[[Path, Path], Any]) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        fallback(file, name)


def count_bytes(node: Any) -> int:
    """Returns the bytes of all tensors in nested content; tensors that share memory count each time."""
    if isinstance(node, Tensor):
        return 0 if node.is_meta else node.numel() * node.element_size()
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return sum(count_bytes(child) for child in children)


def check(file: Path) -> None:
    """Verifies the checksums of a file that torch wrote; raises InputError if it is missing, empty, truncated or changed."""
    try:
        problem = _find_damage(file, *_stamp(file))
    except OSError as error:  # another process has renamed it
        problem = str(error.strerror)
    if problem:
        raise InputError(f"{file} cannot be read as a checkpoint: {problem}")


def sha256(file: Path) -> str:
    """Returns the SHA-256 of a file."""
    return _sha256(file, *_stamp(file))


def _stamp(file: Path) -> tuple[int, int]:
    """Returns what changes when a file is written, so that unchanged files are read once only."""
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=16)
def _find_damage(file: Path, modified: int, size: int) -> str:
    if not size:
        return "it is empty"
    try:
        with zipfile.ZipFile(file) as archive:
            changed = archive.testzip()
            # the zip's directory has no checksum of its own, and torch follows it where zipfile does not
            if odd := [entry.filename for entry in archive.infolist() if entry.external_attr or entry.compress_type]:
                changed = odd[0]
    except zipfile.BadZipFile as error:
        return f"it is damaged or truncated ({error})"
    except (OSError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:  # invalid flags and numbers
        return f"it is damaged ({error})"
    return f"its entry {changed} has changed since it was written" if changed else ""


@functools.lru_cache(maxsize=1024)
def _sha256(file: Path, modified: int, size: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
