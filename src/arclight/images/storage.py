"""Whether decoded images stay in memory or are read from the cache file, and whether they are cached at all."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import platformdirs

from arclight.errors import InputError
from arclight.images.decoding import typed_size
from arclight.images.image_cache import FIX

Storage = Literal["auto", "memory", "disk"]
NO_CACHE = "none"
CACHE_DIRECTORY = ".arclight"  # in `root`


class StorageChoice(NamedTuple):
    """Where decoded images are."""

    is_streamed: bool  # read from disk, batch by batch
    is_cached: bool  # in a file that later starts find and the processes of a machine share
    reason: str


def check_storage(storage: str, cache: str) -> None:
    """Raises InputError for values of `data.storage` and `data.cache` that are invalid or contradict each other."""
    if storage not in get_args(Storage):
        raise InputError(f"data.storage={storage} must be auto, memory or disk", key="data.storage")
    if not cache:
        raise InputError("data.cache is empty; it must be auto, none or a directory", key="data.cache")
    if storage == "disk" and cache == NO_CACHE:
        raise InputError(
            "data.storage=disk reads decoded images from data.cache, which is none; set data.cache=auto", key="data.storage"
        )


def cache_directory(root: Path, cache: str) -> Path:
    """Returns the directory of decoded images for `data.root` and `data.cache`.

    "auto" is `.arclight` in `root`. Nothing is written into directories of other users, or through a link that came with the
    images: these are cached in this user's own cache directory.
    """
    if cache != "auto":
        return Path(cache).expanduser()
    beside = root / CACHE_DIRECTORY
    is_foreign = any(path.exists() and path.stat().st_uid != os.geteuid() for path in (root, beside))
    if beside.is_symlink() or is_foreign:
        return platformdirs.user_cache_path("arclight") / "images"
    return beside


def cache_obstacle(directory: Path | None, missing: int, *, already: int = 0) -> str:
    """Returns why decoded images cannot be cached in a directory; empty where they can.

    None stands for data.cache=none. `missing` are the bytes of the files that are not complete yet, `already` those that the
    one being written has taken.
    """
    if directory is None:
        return f"data.cache={NO_CACHE}"
    if not missing:
        return ""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written"
    free = shutil.disk_usage(existing).free + already
    return "" if missing < free else f"{directory} needs {missing / 1e9:.2f} GB and {free / 1e9:.2f} GB are free there"


def choose_storage(
    shape: tuple[int, ...],
    *,
    free: int,
    fraction: float,
    num_processes: int,
    storage: Storage,
    cache: Path | None,
    obstacle: str,
) -> StorageChoice:
    """Returns memory where it holds the images, else disk.

    Args:
        shape: (N, channels, height, width) of all splits together.
        free: bytes of free memory.
        fraction: of `free` that images may take.
        num_processes: of this machine; each holds its own images where they are not cached.
        storage: "auto", or where they must be.
        cache: directory of the cache; None without one.
        obstacle: of `cache_obstacle`.

    Raises:
        InputError: when they fit neither, or not where they must be.
    """
    copies = num_processes if obstacle else 1
    allowed, needed = int(free * fraction), math.prod(shape) * copies
    count, _, height, width = shape
    fitting = [int(side * min(1, math.sqrt(allowed / needed))) for side in (height, width)]
    sizes = (
        f"{count:,} images of {height}x{width} pixels"
        f"{f' in each of {copies} processes' if copies > 1 else ''} take {needed / 1e9:.2f} GB of memory, and "
        f"data.memory_share={fraction} of the {free / 1e9:.2f} GB free allows {allowed / 1e9:.2f} GB"
    )
    fix = f"data.image_size={typed_size(*fitting)} would fit" if min(fitting) else "free some memory"
    cached = f"not cached for the next start: {obstacle}" if obstacle else f"cached in {cache} for the next start"
    if storage == "disk":
        if obstacle:
            raise InputError(f"data.storage=disk: decoded images cannot be cached: {obstacle}; {FIX}", key="data.storage")
        return StorageChoice(True, True, f"images are read from disk batch by batch, decoded and {cached}")
    if needed <= allowed:
        return StorageChoice(False, not obstacle, f"images are in memory ({needed / 1e9:.2f} GB), decoded and {cached}")
    if storage == "memory":
        raise InputError(f"data.storage=memory: {sizes}; {fix}, or data.storage=disk reads them from disk", key="data.storage")
    if obstacle:
        raise InputError(f"{sizes}; reading them from disk needs space in data.cache=DIRECTORY ({obstacle}); {fix}")
    return StorageChoice(True, True, f"{sizes}: they are read from disk batch by batch, decoded and {cached}; {fix} in memory")
