"""Files and folders that are in place whole or not at all, and what is wrong with one that is there.

Checkpoints of one file are the zip that torch writes. It holds a CRC-32 beside each of its entries, which torch itself does not
look at when it loads; `check` does. Parts of checkpoint folders have their SHA-256 in the folder's list of contents.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from arclight.errors import InputError

LAST = "last.ckpt"


class NotWrittenError(OSError):
    """A file could not be written; what was there before is there still."""


def write(file: Path, save: Callable[[Path], Any], *, num_bytes: int, before: Callable[[], Any] | None = None) -> None:
    """Puts a file in place in one step, once all of it is on the disk.

    Args:
        file: to write.
        save: writes the content to the path that it is given.
        num_bytes: what it will take, about.
        before: done once the content is on the disk and before it takes its place.

    Raises:
        NotWrittenError: when the disk has no room for it, or does not take it.
    """
    part = file.with_name(f"{file.name}.part")
    problem = f"{file} could not be written"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(file.parent).free
        problem = f"{problem}: it takes {num_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there"
        if free < num_bytes:
            raise NotWrittenError(problem)
        save(part)
        sync(part)
        if before is not None:
            before()
        part.replace(file)
        sync(file.parent)
    except NotWrittenError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for what a disk refuses
        with contextlib.suppress(OSError):
            remove(part)
        if isinstance(error, (OSError, SafetensorError)) or "inline_container" in str(error):
            raise NotWrittenError(f"{problem} ({str(error).splitlines()[0]})") from error
        raise


def save_with_torch(content: Any, part: Path) -> None:
    """Writes nested content to this path."""
    with part.open("wb") as stream:
        torch.save(content, stream)


def sync(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, outlive a machine that loses its power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes the file or folder, if any lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def take_the_place(new: Path, path: Path) -> None:
    """Gives what lies at `new` the name of what lies at `path`, where one is a file and the other a folder."""
    old = path.with_name(f"{path.name}.replaced")
    remove(old)
    path.rename(old)
    new.rename(path)
    remove(old)


def names_of_earlier(path: Path, keep: int) -> list[Path]:
    """What the ones before are called where `keep` are kept in all, the newest first: last.previous.ckpt, _2, _3, ..."""
    return [
        path.with_name(f"{path.stem}.previous{f'_{number}' if number > 1 else ''}{path.suffix}") for number in range(1, keep)
    ]


def earlier(path: Path) -> list[Path]:
    """The ones before that lie there, the newest first."""

    def number(other: Path) -> int:
        found = re.search(r"previous_(\d+)", other.name)
        return int(found[1]) if found else 1

    return sorted(path.parent.glob(f"{path.stem}.previous*{path.suffix}"), key=number)


def keep_earlier(path: Path, keep: int, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Gives what lies at `path` another name besides its own, so that at no moment it has none, and lets go of the oldest.

    Args:
        path: a file or a folder.
        keep: how many there are to be in all, the one that comes next included.
        leave_out: files of the folder that belong to the one that comes next.
    """
    names = names_of_earlier(path, keep)
    for old in earlier(path):
        if old not in names:
            remove(old)
    if not names or not path.exists():
        return
    copy = names[0].with_name(f"{names[0].name}.part")
    remove(copy)
    if path.is_dir():
        _link_folder(path, copy, leave_out)
    else:
        try:
            os.link(path, copy)
        except OSError:  # a file system without links
            path.replace(copy)
    for newer, older in reversed(list(itertools.pairwise(names))):
        if newer.exists():
            remove(older)
            newer.replace(older)
    remove(names[0])
    copy.replace(names[0])


def _link_folder(folder: Path, copy: Path, leave_out: frozenset[str]) -> None:
    copy.mkdir()
    for file in folder.iterdir():
        if file.name in leave_out or file.suffix == ".part":
            continue
        try:
            os.link(file, copy / file.name)
        except OSError:  # a file system without links
            shutil.copyfile(file, copy / file.name)
    sync(copy)


def count_bytes(node: Any) -> int:
    """Of the tensors in nested content; those that share their memory count as often as they stand there."""
    if isinstance(node, Tensor):
        return 0 if node.is_meta else node.numel() * node.element_size()
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return sum(count_bytes(child) for child in children)


def check(file: Path) -> None:
    """Looks through all of a file that torch wrote.

    Raises:
        InputError: when it is empty, cut short, gone, or any of its content has changed since it was written.
    """
    try:
        facts = file.stat()
    except OSError as error:  # another process has put it aside
        raise InputError(f"{file} cannot be read as a checkpoint: {error.strerror}") from error
    if problem := _problem_of(file, facts.st_mtime_ns, facts.st_size):
        raise InputError(f"{file} cannot be read as a checkpoint: {problem}")


@functools.lru_cache(maxsize=16)
def _problem_of(file: Path, modified: int, size: int) -> str:
    """What is wrong with a file of this time and size; nothing of a whole one."""
    if not size:
        return "it is empty"
    try:
        with zipfile.ZipFile(file) as archive:
            changed = archive.testzip()
            # the list of entries has no checksum of its own, and torch follows it where zipfile does not
            if odd := [entry.filename for entry in archive.infolist() if entry.external_attr or entry.compress_type]:
                changed = odd[0]
    except zipfile.BadZipFile as error:
        return f"it is damaged or cut short ({error})"
    except (OSError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:  # flags and numbers that make no sense
        return f"it is damaged ({error})"
    return f"its part {changed} has changed since it was written" if changed else ""


def digest(file: Path) -> str:
    """The SHA-256 of a file's content; a file that has not been touched since is not read again."""
    facts = file.stat()
    return _digest(file, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, modified: int, size: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
