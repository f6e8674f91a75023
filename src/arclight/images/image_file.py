"""Decoded images in a file: read row by row, or mapped into memory.

The files are NumPy's (`numpy.load(path, mmap_mode="r", allow_pickle=False)` shows one), and no code is ever read from them.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arclight.errors import InputError


class ImageFile:
    """The images of a file, uint8 (N, C, H, W), of which only what is asked for is in memory.

    Raises:
        InputError: from reading, when the file has been cut short or the disk fails.
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
        """One image (C, H, W), or those of a slice or of int64 rows (B, C, H, W)."""
        if isinstance(rows, int):
            return self[torch.tensor([range(len(self))[rows]])][0]
        indices = torch.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu()
        images = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        self.read(indices, images)
        return images

    def read(self, indices: Tensor, images: Tensor) -> None:
        """Fills `images`, uint8 (B, C, H, W), with the rows `indices`, int64 (B,); neighbours are read at one go."""
        places = images.numpy().reshape(len(indices), -1)
        num_bytes = self.shape[1:].numel()
        rows = indices.numpy()
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, end in zip([0, *ends], ends, strict=False):
            self._fill(places[start:end].reshape(-1).data, self._offset + int(rows[start]) * num_bytes)

    def _fill(self, target: memoryview, position: int) -> None:
        while len(target):
            try:
                count = os.preadv(self._file, [target], position)
            except OSError as error:
                raise InputError(f"cannot read {self.path}: {error.strerror}; delete it to have it made anew") from error
            if not count:
                raise InputError(f"{self.path} is shorter than it was; delete it to have it made anew")
            target, position = target[count:], position + count


def mapped(path: Path) -> Tensor:
    """The images of a file, uint8 (N, C, H, W), as memory that this machine's processes share; what one writes is its own."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
