"""Where decoded images live: in memory or on disk, kept for the next start or not; chosen from sizes and the user's wish."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from arclight.errors import InputError

Storage = Literal["auto", "memory", "disk"]
NO_CACHE = "none"


class Place(NamedTuple):
    """What was chosen."""

    is_streamed: bool  # read from disk, batch by batch
    is_kept: bool  # decoded into a file, which the next start finds and the processes of a machine share
    told: str


def check(storage: str, cache: str) -> None:
    """Raises InputError for values of the two settings that say nothing, or contradict each other."""
    if storage not in get_args(Storage):
        raise InputError(f"data.storage={storage} must be auto, memory or disk")
    if not cache:
        raise InputError("data.cache is empty; it must be auto, none or a folder")
    if storage == "disk" and cache == NO_CACHE:
        raise InputError("data.storage=disk reads decoded images from data.cache, which is none; take data.cache=auto")


def obstacle(folder: Path | None, missing: int, *, already: int = 0) -> str:
    """Why decoded images cannot be kept in a folder; empty where they can.

    Args:
        folder: where; it need not be there yet. None is nowhere, as the user wished.
        missing: bytes of files that are not whole yet.
        already: bytes that the one being written has taken.
    """
    if folder is None:
        return f"data.cache={NO_CACHE}"
    if not missing:
        return ""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written"
    free = shutil.disk_usage(there).free + already
    return "" if missing < free else f"{folder} wants {missing / 1e9:.2f} GB and {free / 1e9:.2f} GB are free there"


def choose(
    num_images: int,
    image_size: int,
    *,
    free: int,
    share: float,
    num_processes: int,
    wish: Storage,
    folder: Path | None,
    obstacle: str,
) -> Place:
    """Memory where it holds the images, else the disk.

    Args:
        num_images: of all splits.
        image_size: height and width in pixels.
        free: bytes of memory that this machine has free.
        share: of these that images may take.
        num_processes: of this machine; each holds images of its own where they are not kept in a file.
        wish: "auto", or where they must be.
        folder: in which they are kept.
        obstacle: why they cannot be; empty where they can.

    Raises:
        InputError: when they fit neither, or not where they must be.
    """
    copies = num_processes if obstacle else 1
    allowed = int(free * share)
    needed = num_images * 3 * image_size**2 * copies
    fitting = math.isqrt(allowed // (3 * num_images * copies))
    sizes = (
        f"{num_images:,} images of {image_size}x{image_size} pixels"
        f"{f' in each of {copies} processes' if copies > 1 else ''} take {needed / 1e9:.2f} GB of memory, and "
        f"data.memory_share={share} of the {free / 1e9:.2f} GB free allows {allowed / 1e9:.2f} GB"
    )
    way_out = f"data.image_size={fitting} would fit" if fitting else "free some memory"
    kept = f"not kept for the next start: {obstacle}" if obstacle else f"kept in {folder} for the next start"
    if wish == "disk" and obstacle:
        raise InputError(f"data.storage=disk: decoded images cannot be kept: {obstacle}; data.cache=FOLDER names another place")
    if wish == "disk":
        return Place(True, True, f"images are read from disk as they are wanted, decoded and {kept}")
    if needed <= allowed:
        return Place(False, not obstacle, f"images are in memory ({needed / 1e9:.2f} GB), decoded and {kept}")
    if wish == "memory":
        raise InputError(f"data.storage=memory: {sizes}; {way_out}, and data.storage=disk reads them from disk")
    if obstacle:
        raise InputError(f"{sizes}; reading them from disk wants data.cache=FOLDER with room for them ({obstacle}); {way_out}")
    return Place(True, True, f"{sizes}: they are read from disk as they are wanted, decoded and {kept}; {way_out} in memory")
