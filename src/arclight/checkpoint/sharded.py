"""Sharded checkpoints: a directory with one file per process, readable with any number of processes.

`contents.pt` is what a single-file checkpoint would be, with a meta tensor in place of each sharded one. The values are in
`*-00000-of-00002.safetensors` and so on, each with the rows of one process. A save writes files with new names, then replaces
`contents.pt`, which lists them with their SHA-256: at every moment the directory holds the old or the new checkpoint, complete,
and damage is detected. Everything loads with `weights_only=True`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from arclight.checkpoint.atomic_write import LAST, check, count_bytes, keep_previous, save_with_torch, sha256, write
from arclight.errors import InputError, first_line

CONTENTS = "contents.pt"
VERSION = 2  # of the directory


def map_nested(node: Any, function: Callable[[Any, str], Any], path: str = "") -> Any:
    """Returns a copy of nested dicts and lists with `function(leaf, path)` in place of each leaf; paths look like "/a/0/b"."""
    if isinstance(node, Mapping):
        return {key: map_nested(value, function, f"{path}/{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [map_nested(value, function, f"{path}/{position}") for position, value in enumerate(node)]
    return function(node, path)


def split_local_rows(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the checkpoint with a meta tensor in place of each DTensor, and this process's rows of them by path."""
    rows: dict[str, Tensor] = {}

    def split(leaf: Any, path: str) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        assert path not in rows
        rows[path] = leaf.to_local().detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")

    return map_nested(checkpoint, split), rows


def rows_of_rank(num_rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Returns start and end of the rows of a tensor that torch's `Shard(0)` gives to a rank."""
    size = -(-num_rows // world_size)
    return min(rank * size, num_rows), min((rank + 1) * size, num_rows)


def write_contents(directory: Path, contents: dict[str, Any], files: Mapping[str, str], *, keep: int = 1) -> None:
    """Makes the files the checkpoint of the directory, atomically, and removes those of the previous one; raises as `write`.

    `contents` has a meta tensor in place of each sharded one; `files` maps names in the order of their rows to SHA-256.
    """
    before = None
    if directory.name == LAST and (directory / CONTENTS).exists():
        before = functools.partial(keep_previous, directory, keep, exclude=frozenset(files))
    save = functools.partial(save_with_torch, {"version": VERSION, "files": dict(files), "contents": contents})
    write(directory / CONTENTS, save, num_bytes=count_bytes(contents), before_replace=before)
    for file in directory.glob("*.safetensors*"):
        if file.name not in files:
            file.unlink()


def check_sharded(directory: Path) -> None:
    """Verifies all files of a sharded checkpoint; raises InputError naming one that is missing or has changed."""
    if (directory / CONTENTS).is_file():  # else the reader reports it
        check(directory / CONTENTS)
    for name, written in ShardedReader(directory).checksums.items():
        if sha256(directory / name) != written:
            raise InputError(f"{directory / name} cannot be read as a checkpoint: it has changed since it was written")


class ShardedReader:
    """The open files of a sharded checkpoint; raises InputError for missing or damaged ones, or an unknown version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / CONTENTS).is_file():
            raise incomplete(directory)
        try:
            saved = torch.load(directory / CONTENTS, map_location="cpu", weights_only=True)
            version = saved.get("version", 1)
        except Exception as error:  # torch raises a different class for each kind of damage
            raise unreadable(directory / CONTENTS, error) from error
        if version != VERSION:
            raise InputError(f"{directory} is a sharded checkpoint of version {version}; this arclight reads version {VERSION}")
        try:
            self.checksums, self.contents = dict(saved["files"]), dict(saved["contents"])
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(directory / CONTENTS, error) from error
        self._files = {name: self._open(name) for name in self.checksums}

    def _open(self, name: Any) -> Any:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{self.directory} cannot be read as a checkpoint: {name!r} is not the name of a file in it")
        if not (self.directory / name).is_file():
            raise InputError(f"{self.directory} is an incomplete checkpoint: {name} is missing")
        try:
            return safe_open(self.directory / name, framework="pt")
        except (SafetensorError, OSError) as error:
            raise unreadable(self.directory / name, error) from error

    def rows(self, name: str, like: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Returns the rows [start, end) of a tensor of the shape of `like`, all of them by default."""
        end = len(like) if end is None else end
        pieces, first = [like.new_empty((0, *like.shape[1:]), device="cpu")], 0
        for file_name, file in self._files.items():
            try:
                piece = file.get_slice(name)
                length = piece.get_shape()[0]
                if max(start, first) < min(end, first + length):
                    pieces.append(piece[max(start - first, 0) : min(end - first, length)])
            except SafetensorError as error:
                raise unreadable(self.directory / file_name, error) from error
            first += length
        if first != len(like):
            raise InputError(f"{self.directory} cannot be read as a checkpoint: {name} has {first} rows instead of {len(like)}")
        return torch.cat(pieces)


def incomplete(directory: Path) -> InputError:
    """Returns the error for a directory whose first save did not finish."""
    return InputError(f"{directory} is an incomplete checkpoint: {CONTENTS} is missing")


def unreadable(path: Path, error: Exception) -> InputError:
    """Returns the error for a file that cannot be read."""
    return InputError(f"{path} cannot be read as a checkpoint: {first_line(error)}")


def load_sharded(
    directory: Path,
    *,
    load_tensor: Callable[[ShardedReader, str, Tensor], Tensor] = ShardedReader.rows,
    skip: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the dictionary that a single-file checkpoint would hold; raises InputError naming a missing or damaged file.

    `load_tensor` maps reader, path and meta tensor to the tensor for a sharded one, by default all its rows. Sharded tensors
    below the keys `skip` stay meta tensors.
    """
    reader = ShardedReader(directory)

    def load(leaf: Any, path: str) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_meta):
            return leaf
        try:
            return load_tensor(reader, path, leaf)
        except InputError:
            raise
        except (IndexError, TypeError, RuntimeError) as error:  # shapes that do not match
            raise unreadable(directory, error) from error

    try:
        return {key: value if key in skip else map_nested(value, load, f"/{key}") for key, value in reader.contents.items()}
    except RecursionError as error:  # it contains itself
        raise unreadable(directory, error) from error
