"""A fingerprint of a data set: a hash of a few of its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from arclight.data.seeding import seed_generators


def fingerprint_of(datasets: Sequence[Any]) -> str | None:
    """Returns a hash of the first, the middle and the last sample of map-style data sets, which may augment them.

    None where there are none, or their samples cannot be read or hashed, or are not the same when read again with equal seeds.
    """
    try:
        with isolate_rng():
            first, second = (hash_of(samples_of(datasets)) for _ in range(2))
    except Exception:  # the loader reports errors of the data
        return None
    return first if datasets and first == second else None


def samples_of(datasets: Sequence[Any]) -> Iterator[Any]:
    """Yields the samples that are hashed."""
    for dataset in datasets:
        for row in sorted({0, len(dataset) // 2, len(dataset) - 1}):
            seed_generators(row)
            yield dataset[row]


def hash_of(values: Iterable[Any]) -> str:
    """Returns the SHA-256 of nested tensors, arrays, images, numbers and text; raises TypeError for anything else."""
    digest = hashlib.sha256()
    for value in values:
        for part in bytes_of(value):
            digest.update(part)
    return digest.hexdigest()


def bytes_of(value: Any) -> Iterator[bytes]:
    """Yields the content of a value, and what separates it from others."""
    if isinstance(value, torch.Tensor):
        yield f"{tuple(value.shape)} {value.dtype} ".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects")
        yield f"{value.shape} {value.dtype} ".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from bytes_of(key)
            yield from bytes_of(inner)
    elif isinstance(value, list | tuple):
        yield f"{len(value)} ".encode()
        for inner in value:
            yield from bytes_of(inner)
    elif value is None or isinstance(value, str | bytes | int | float | complex | np.generic):
        yield f"{value!r} ".encode()
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # an image of Pillow
        yield f"{value.size} ".encode()
        yield value.tobytes()
    else:
        raise TypeError(type(value).__name__)
