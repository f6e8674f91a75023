"""CIFAR-10 from its publisher's binary files, read into uint8 tensors: no pickle, no image library.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images", https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arclight.data.download import fetch, md5_of, unpack
from arclight.data.splits import split
from arclight.errors import InputError
from arclight.hardware.memory import free_bytes
from arclight.images.datamodule import ArrayDataModule, Arrays

_log = logging.getLogger(__name__)

URLS = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"  # 170,052,171 bytes
DIRECTORY = "cifar-10-batches-bin"
CLASS_NAMES = "batches.meta.txt"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue planes, row by row
PUBLISHED_RECORDS = 10_000  # in each file
CHUNK = 1000  # records read at once
MAX_NAMES_BYTES = 10_000  # of the file of class names


class Cifar10(ArrayDataModule):
    """CIFAR-10: 50,000 images of 32x32 pixels in 10 classes, of which `validation` are held out, and 10,000 to test.

    The arguments not listed here are those of ArrayDataModule.

    Args:
        root: the directory cifar-10-batches-bin, the directory of it or of cifar-10-binary.tar.gz, or the archive itself; if
            missing, it is downloaded there.
        validation: held out of training, as a count or a fraction.
        split_seed: selects them; runs with other values of `seed` validate on the same images.
        download: False never downloads.
    """

    def __init__(
        self,
        root: str,
        *,
        validation: int | float = 5000,
        split_seed: int = 0,
        download: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        self.validation = validation
        self.split_seed = split_seed
        self.download = download

    def prepare(self) -> None:
        folder = self._folder()
        if folder is None:
            archive = self._archive()
            folder = archive.parent / DIRECTORY
            unpack(archive, folder)
        check_files(folder)

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        folder = self._folder()
        if folder is None:
            raise InputError(f"no CIFAR-10 at data.root={self.root} on this machine; every node needs a copy")
        classes = read_class_names(folder / CLASS_NAMES)
        paths = [folder / name for name in (TEST_FILES if part == "test" else TRAIN_FILES)]
        num_records = sum(path.stat().st_size // RECORD for path in paths)
        if (needed := num_records * RECORD) > (free := free_bytes()):
            raise InputError(f"{folder}: its files take {needed / 1e9:.2f} GB of memory, and {free / 1e9:.2f} GB are free")
        if part == "test":
            return read_records(paths, len(classes), {"test": torch.arange(num_records)}), classes
        train, val = split(num_records, self.validation, self.split_seed)
        return read_records(paths, len(classes), {"train": train, "val": val}), classes

    @property
    def _is_archive(self) -> bool:
        """Whether `root` is the archive and not a directory; by its name where it does not exist."""
        assert self.root is not None
        return self.root.is_file() or (self.root.name.endswith(".tar.gz") and not self.root.is_dir())

    def _folder(self) -> Path | None:
        """Returns the directory of the unpacked files; None if there is none."""
        assert self.root is not None
        candidates = (self.root.parent / DIRECTORY,) if self._is_archive else (self.root, self.root / DIRECTORY)
        names = (CLASS_NAMES, *TRAIN_FILES, *TEST_FILES)
        return next((path for path in candidates if any((path / name).exists() for name in names)), None)

    def _archive(self) -> Path:
        """Returns the archive at `root`, downloaded if missing."""
        assert self.root is not None
        archive = self.root if self._is_archive else self.root / ARCHIVE
        if archive.is_file():
            if (md5 := md5_of(archive)) != MD5:
                _log.warning("%s is not the published archive (md5 %s instead of %s), and is used", archive, md5, MD5)
        elif self.download:
            fetch(URLS, archive, check=check_md5)
        else:
            raise InputError(
                f"no CIFAR-10 at data.root={self.root}: it holds neither {DIRECTORY}/ nor {ARCHIVE}; set another root, or "
                "data.download=true"
            )
        return archive


def check_md5(archive: Path) -> None:
    """Raises InputError unless the file is the published archive."""
    if (md5 := md5_of(archive)) != MD5:
        raise InputError(f"the download ({archive.stat().st_size:,} bytes) has md5 {md5} instead of {MD5}")


def check_files(folder: Path) -> None:
    """Raises InputError that names every file that is missing or whose size is not a multiple of a record."""
    wrong = [] if (folder / CLASS_NAMES).is_file() else [f"{CLASS_NAMES} is missing"]
    other_counts = []
    for name in (*TRAIN_FILES, *TEST_FILES):
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
            continue
        records, rest = divmod(path.stat().st_size, RECORD)
        if rest or not records:
            expected = PUBLISHED_RECORDS * RECORD
            wrong.append(
                f"{name} has {path.stat().st_size:,} bytes, not a multiple of {RECORD} (the published one has {expected:,})"
            )
        elif records != PUBLISHED_RECORDS:
            other_counts.append(f"{name} {records:,}")
    if wrong:
        errors = "\n".join(f"  {error}" for error in wrong)
        raise InputError(
            f"CIFAR-10 in {folder} is incomplete or corrupt:\n{errors}\nDelete it, it will be unpacked or downloaded again."
        )
    if other_counts:
        _log.warning("records in %s: %s; the published files hold %s each", folder, ", ".join(other_counts), PUBLISHED_RECORDS)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the names in a batches.meta.txt, one per line.

    Raises:
        InputError: when it is not text, is too long, or has fewer than two names or duplicates.
    """
    try:
        with path.open("rb") as file:
            names = tuple(file.read(MAX_NAMES_BYTES + 1)[:MAX_NAMES_BYTES].decode().split())
        is_long = path.stat().st_size > MAX_NAMES_BYTES
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list of class names: {error}") from error
    if is_long or len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"{path} is not a list of two or more different class names; delete the directory to unpack it again")
    return names


def read_records(paths: Sequence[Path], num_classes: int, splits: Mapping[str, Tensor]) -> dict[str, Arrays]:
    """Returns images and labels of each split; only a small chunk is ever in memory twice.

    Args:
        paths: files of consecutive records.
        num_classes: upper bound of the labels.
        splits: the records of each split, int64 and ascending.

    Raises:
        InputError: naming the file and its first record with an invalid label.
    """
    pixels = {name: torch.empty(len(rows), RECORD - 1, dtype=torch.uint8) for name, rows in splits.items()}
    labels = {name: torch.empty(len(rows), dtype=torch.int64) for name, rows in splits.items()}
    start = 0
    for records in _chunks(paths, num_classes):
        for name, rows in splits.items():
            first, end = torch.searchsorted(rows, torch.tensor([start, start + len(records)])).tolist()
            own = records[rows[first:end] - start]
            pixels[name][first:end], labels[name][first:end] = own[:, 1:], own[:, 0]
        start += len(records)
    return {name: Arrays(pixels[name].view(-1, 3, 32, 32), labels[name]) for name in splits}


def _chunks(paths: Sequence[Path], num_classes: int) -> Iterator[Tensor]:
    """Yields all records in order, uint8 (at most CHUNK, RECORD)."""
    for path in paths:
        with path.open("rb") as file:
            for start in range(0, path.stat().st_size // RECORD, CHUNK):
                records = torch.from_numpy(np.fromfile(file, np.uint8, CHUNK * RECORD)).view(-1, RECORD)
                if len(beyond := (records[:, 0] >= num_classes).nonzero()):
                    record = int(beyond[0])
                    raise InputError(
                        f"{path} has label {records[record, 0]} in record {start + record}; {num_classes} classes allow 0 to "
                        f"{num_classes - 1}: the file is damaged, or is not CIFAR-10"
                    )
                yield records
