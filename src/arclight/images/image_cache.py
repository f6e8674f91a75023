"""Decoded images of a split in a cache file: written once by many threads, then read row by row or mapped into memory.

The files are NumPy's (`numpy.load(path, mmap_mode="r", allow_pickle=False)` shows one); no code is ever read from them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from arclight.config.atomic_file import PART, read_json, replacement, write_atomically
from arclight.data.download import progress
from arclight.errors import InputError

_log = logging.getLogger(__name__)

VERSION = 2  # of decoding: raise it when the same files give other pixels
PREFIX = "decoded-"
UNUSED_DAYS = 30  # after which a file is deleted
FIX = "choose another directory with data.cache=DIRECTORY"
MAX_LISTED_ERRORS = 10
ROWS_PER_THREAD = 16  # at once

Write = Callable[[int, NDArray[np.uint8]], None]  # writes an image (C, H, W) into a row
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel


class CachedImages(NamedTuple):
    """The cache file of a split's decoded images, uint8 of this shape (N, C, H, W), whether it exists or not.

    Its name ends in a hyphen and the fingerprint of the images. When it is written, files whose names differ in nothing else
    are deleted: they are of images that have changed since.
    """

    path: Path
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size on disk or in memory."""
        return math.prod(self.shape)

    def is_complete(self) -> bool:
        """Whether the file exists, is no link and is intact; it is then marked as used."""
        if self.path.is_symlink() or not self.path.is_file():  # opening a pipe would block
            return False
        try:
            header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):  # missing, cut short, or another kind of file
            return False
        if header.shape != self.shape or header.dtype != np.uint8:
            return False
        with suppress(OSError):  # it belongs to another user
            os.utime(self.path)
        return True

    def create(self, decode: Callable[[Write], None]) -> None:
        """Writes the file unless it is complete. Many processes may call this at once: one decodes, the others wait for it.

        `decode` passes each row to the function that it is given; threads may do so at once.

        Raises:
            InputError: when the disk is full, the directory cannot be written, or `decode` raises it.
        """
        if self.is_complete():
            return
        directory = self.path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(directory / f".{PREFIX}lock").acquire()
        except OSError as error:
            raise InputError(f"cannot write in {directory}: {error.strerror}; {FIX}") from error
        with lock:
            if not self.is_complete():
                delete_unused(directory)
                self._write(decode)
                for path in directory.glob(f"{PREFIX}*.npy"):
                    if path != self.path and path.name.rpartition("-")[0] == self.path.name.rpartition("-")[0]:
                        _log.info("deleted %s: its images have changed", path)
                        delete(path)

    def _write(self, decode: Callable[[Write], None]) -> None:
        try:
            with replacement(self.path) as part, part.open("r+b") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": self.shape})
                file.flush()
                decode(_row_writer(file.fileno(), file.tell(), self.num_bytes // self.shape[0]))
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise InputError(f"cannot write {self.path}: {error.strerror or error}; {FIX}") from error
            free = shutil.disk_usage(self.path.parent).free
            raise InputError(
                f"no space for {self.num_bytes / 1e9:.2f} GB of decoded images in {self.path.parent}, where "
                f"{free / 1e9:.2f} GB are free; {FIX}"
            ) from error

    def statistics(self, compute: Callable[[], Statistics]) -> Statistics:
        """Returns what `compute` returns, computed once and saved beside the images."""
        path = self.path.with_suffix(".json")
        with suppress(ValueError, KeyError, TypeError):  # missing or damaged
            saved = read_json(path)
            mean, std = tuple(map(float, saved["mean"])), tuple(map(float, saved["std"]))
            if len(mean) == len(std) == self.shape[1] and all(map(math.isfinite, (*mean, *std))):
                return mean, std
        mean, std = compute()
        with suppress(OSError):  # not fatal: the next run computes them again
            write_atomically(path, json.dumps({"mean": mean, "std": std}))
        return mean, std


class ImageFile:
    """Reads images of a cache file, uint8 (N, C, H, W), row by row; indexed like a tensor.

    Raises:
        InputError: from reading, when the file has been truncated or the disk fails.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        header = np.load(path, mmap_mode="r", allow_pickle=False)
        self.path = path
        self.shape = torch.Size(header.shape)
        self._offset = int(header.offset)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
        """Returns one image (C, H, W), or those of a slice or of int64 rows, (B, C, H, W)."""
        if isinstance(rows, int):
            return self[torch.tensor([range(len(self))[rows]])][0]
        indices = torch.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu()
        images = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        self.read(indices, images)
        return images

    def read(self, indices: Tensor, images: Tensor) -> None:
        """Fills `images`, uint8 (B, C, H, W), with the rows `indices`, int64 (B,); adjacent rows are one read."""
        target, num_bytes, rows = images.numpy().reshape(len(indices), -1), self.shape[1:].numel(), indices.numpy()
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, end in zip([0, *ends], ends, strict=False):
            self._fill(target[start:end].reshape(-1).data, self._offset + int(rows[start]) * num_bytes)

    def _fill(self, target: memoryview, position: int) -> None:
        while len(target):
            try:
                count = os.preadv(self._file, [target], position)
            except OSError as error:
                raise InputError(f"cannot read {self.path}: {error.strerror}; delete it, it will be created again") from error
            if not count:
                raise InputError(f"{self.path} has been truncated; delete it, it will be created again")
            target, position = target[count:], position + count


def memory_map(path: Path) -> Tensor:
    """Returns the images of a file, uint8 (N, C, H, W), in memory shared by this machine's processes; writes stay private."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def fingerprint(paths: Sequence[Path], root: Path, settings: Sequence[Any] = ()) -> str:
    """Returns 16 hexadecimal digits that change when a file is added, removed or rewritten, but not when `root` is moved.

    `settings` are plain values that the content depends on, too.
    """
    digest = hashlib.sha256(json.dumps([VERSION, *settings]).encode())
    for path in paths:
        stat = path.stat()
        digest.update(json.dumps([path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def _row_writer(file: int, offset: int, num_bytes: int) -> Write:
    def write(row: int, image: NDArray[np.uint8]) -> None:
        rest, position = np.ascontiguousarray(image).reshape(-1).data, offset + row * num_bytes
        while len(rest):
            count = os.pwrite(file, rest, position)
            rest, position = rest[count:], position + count

    return write


def unfinished_bytes(directory: Path) -> int:
    """Returns the bytes of disk that a file being written has taken: it will be completed, or its space freed."""
    taken = 0
    for part in directory.glob(f"{PREFIX}*{PART}"):
        with suppress(OSError):  # just finished
            taken += part.lstat().st_blocks * 512  # rows still missing take none
    return taken


def delete_unused(directory: Path) -> None:
    """Deletes the cache files that no run has used for UNUSED_DAYS, and what a killed process has left unfinished.

    The caller has the lock of the directory: nobody else writes in it.
    """
    for part in directory.glob(f"{PREFIX}*{PART}"):  # the directory may hold other files of the user
        with suppress(OSError):
            part.unlink()
    for path in directory.glob(f"{PREFIX}*.npy"):
        if path.lstat().st_mtime < time.time() - UNUSED_DAYS * 86400:
            _log.info("deleted %s, unused for %d days", path, UNUSED_DAYS)
            delete(path)


def delete(path: Path) -> None:
    """Deletes a cache file and the statistics beside it."""
    for file in (path.with_suffix(".json"), path):
        with suppress(OSError):  # there is none, or it is a directory
            file.unlink()


def for_each(work: Callable[[int], None], num_rows: int, *, num_threads: int, title: str) -> None:
    """Calls `work` for the rows 0..num_rows-1 in threads; image decoders release the GIL.

    Raises:
        InputError: with all InputErrors that `work` raised, in order of rows.
    """

    def work_from(start: int) -> list[str]:
        errors = []
        for row in range(start, min(start + ROWS_PER_THREAD, num_rows)):
            try:
                work(row)
            except InputError as error:
                errors.append(str(error))
        return errors

    errors: list[str] = []
    starts = range(0, num_rows, ROWS_PER_THREAD)
    pool = ThreadPoolExecutor(num_threads)
    try:
        for some in progress(pool.map(work_from, starts), title, len(starts)):
            errors += some
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, the rest is not decoded first
    if errors:
        listed = [*errors[:MAX_LISTED_ERRORS], *(["..."] if len(errors) > MAX_LISTED_ERRORS else [])]
        raise InputError("\n  ".join([f"{len(errors)} of {num_rows} files cannot be read; fix or delete them:", *listed]))
