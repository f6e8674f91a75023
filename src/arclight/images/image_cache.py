"""Images decoded once and kept: a file for each split, whole or not there, made by one process for all that want it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from arclight.config.atomic_file import write_atomically
from arclight.errors import InputError

_log = logging.getLogger(__name__)

VERSION = 1  # of what decoding gives: raise it when the same files give other pixels
NAME = "decoded-"  # how the files' names begin
PART = f"{NAME}unfinished.part"  # one for a folder, where one process writes at a time; what a killed one left is written over
KEPT_DAYS = 30  # since a file was last used
WAY_OUT = "data.cache=FOLDER names another place"

Write = Callable[[int, NDArray[np.uint8]], None]  # puts an image (C, H, W) into a row
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel


class KeptImages(NamedTuple):
    """The place of a split's decoded images, uint8 of this shape (N, C, H, W), whether they are there or not."""

    path: Path
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """What they take, on disk or in memory."""
        return int(np.prod(self.shape))

    def is_whole(self) -> bool:
        """Whether they are there; they are then marked as used."""
        try:
            header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):  # not there, cut short, or no such file
            return False
        if header.shape != self.shape or header.dtype != np.uint8:
            return False
        with suppress(OSError):  # of someone else
            os.utime(self.path)
        return True

    def make(self, decode: Callable[[Write], None]) -> None:
        """Afterwards they are there, whole; if they are already, nothing happens.

        Many processes may call this at once: one decodes, the others wait for it.

        Args:
            decode: gives each row to the function that it gets; threads may do so at once.

        Raises:
            InputError: when there is no room, the place cannot be written, or `decode` raises it.
        """
        if self.is_whole():
            return
        folder = self.path.parent
        with _alone_in(folder):
            if self.is_whole():
                return
            forget_unused(folder)
            part = folder / PART
            try:
                with part.open("wb") as file:
                    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": self.shape})
                    file.flush()
                    decode(_writer(file.fileno(), file.tell(), self.num_bytes // self.shape[0]))
                    os.fsync(file.fileno())
                part.replace(self.path)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise InputError(f"cannot write {self.path}: {error.strerror or error}; {WAY_OUT}") from error
                free = shutil.disk_usage(folder).free
                raise InputError(
                    f"no room for {self.num_bytes / 1e9:.2f} GB of decoded images in {folder}, where {free / 1e9:.2f} GB are "
                    f"left; {WAY_OUT}"
                ) from error
            finally:
                part.unlink(missing_ok=True)

    def statistics(self, count: Callable[[], Statistics]) -> Statistics:
        """What `count` gives, counted once and kept beside the images."""
        path = self.path.with_suffix(".json")
        with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged
            kept = json.loads(path.read_text())
            return tuple(map(float, kept["mean"])), tuple(map(float, kept["std"]))
        mean, std = count()
        with suppress(OSError):  # not fatal: the next run computes them again
            write_atomically(path, json.dumps({"mean": mean, "std": std}))
        return mean, std


def fingerprint(paths: Sequence[Path], root: Path, image_size: int) -> str:
    """16 hexadecimal digits that change when a file comes, goes, or is written anew, and not when `root` is moved."""
    digest = hashlib.sha256(json.dumps([VERSION, image_size]).encode())
    for path in paths:
        facts = path.stat()
        name = path.relative_to(root).as_posix()
        digest.update(json.dumps([name, facts.st_size, facts.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def _writer(file: int, offset: int, num_bytes: int) -> Write:
    def write(row: int, image: NDArray[np.uint8]) -> None:
        rest, position = np.ascontiguousarray(image).reshape(-1).data, offset + row * num_bytes
        while len(rest):
            count = os.pwrite(file, rest, position)
            rest, position = rest[count:], position + count

    return write


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process makes a file in this folder.

    Raises:
        InputError: when the folder cannot be made or written.
    """
    lock = FileLock(folder / f".{NAME}lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}; {WAY_OUT}") from error
    try:
        yield
    finally:
        lock.release()


def unfinished_bytes(folder: Path) -> int:
    """What a file in the making has taken of the disk; it will be whole, or make room again."""
    with suppress(OSError):  # none, or just finished
        return (folder / PART).stat().st_blocks * 512  # rows that are still missing take none
    return 0


def forget_unused(folder: Path) -> None:
    """Deletes the images that no run has used for KEPT_DAYS, and what belongs to them."""
    for path in folder.glob(f"{NAME}*.npy"):  # the folder may be the user's own, with more in it
        if path.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            _log.info("deleted %s, unused for %d days", path, KEPT_DAYS)
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()
