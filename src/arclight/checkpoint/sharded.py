"""Checkpoints in parts: a folder with a file from each process, and reading it with any number of processes.

`contents.pt` is what a checkpoint of one file would be, with a tensor without values in place of each that is spread over the
processes; the values lie in `*-00000-of-00002.safetensors` and its like, each with the rows of one process. A save writes files
of new names and then replaces `contents.pt`, which names those that belong to it, each with its SHA-256: whatever happens, the
folder holds the old checkpoint whole or the new one whole, and no damage goes unseen. Nothing in it is a pickle that runs code.
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

from arclight.checkpoint import atomic_write
from arclight.checkpoint.atomic_write import LAST, digest, keep_earlier, save_with_torch, write
from arclight.errors import InputError

CONTENTS = "contents.pt"
VERSION = 2  # of the folder; version 1 has no SHA-256 of its files


def take_apart(node: Any, rows: dict[str, Tensor], path: str = "") -> Any:
    """A copy with a tensor without values in place of each that is spread; this process's rows of it go into `rows`."""
    if isinstance(node, DTensor):
        assert path not in rows
        rows[path] = node.to_local().detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return torch.empty(node.shape, dtype=node.dtype, device="meta")
    if isinstance(node, Mapping):
        return {key: take_apart(value, rows, f"{path}/{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [take_apart(value, rows, f"{path}/{position}") for position, value in enumerate(node)]
    return node


def take_whole(stored: Stored, name: str, like: Tensor) -> Tensor:
    """All rows."""
    return stored.rows(name, like, 0, len(like))


def own_rows(num_rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Which rows of a tensor torch gives to a process: from the first number to before the second."""
    share = -(-num_rows // world_size)
    return min(rank * share, num_rows), min((rank + 1) * share, num_rows)


def commit(folder: Path, contents: dict[str, Any], files: Mapping[str, str], *, keep: int = 1) -> None:
    """Makes these files the checkpoint, in one step, and removes those of the last one.

    Args:
        folder: that the files lie in.
        contents: the checkpoint, with a tensor without values in place of each that is spread.
        files: names of the parts, in the order of their rows, each with its SHA-256.
        keep: how many of the last checkpoints stay.

    Raises:
        NotWrittenError: when the disk does not take it; the folder holds what it held.
    """
    whole = {"version": VERSION, "files": dict(files), "contents": contents}
    before = None
    if folder.name == LAST and (folder / CONTENTS).exists():
        before = functools.partial(keep_earlier, folder, keep, leave_out=frozenset(files))
    num_bytes = atomic_write.count_bytes(contents)
    write(folder / CONTENTS, functools.partial(save_with_torch, whole), num_bytes=num_bytes, before=before)
    for left_over in folder.glob("*.safetensors*"):
        if left_over.name not in files:
            left_over.unlink()


def check(folder: Path) -> None:
    """Looks through all files of a checkpoint folder.

    Raises:
        InputError: naming the one that lacks or that has changed since it was written.
    """
    if (folder / CONTENTS).is_file():  # else it is told below
        atomic_write.check(folder / CONTENTS)
    for name, written in Stored(folder).digests.items():
        if digest(folder / name) != written:
            raise InputError(f"{folder / name} cannot be read as a checkpoint: it has changed since it was written")


class Stored:
    """The open files of a checkpoint folder.

    Raises:
        InputError: for a file that lacks or is damaged, or a folder of a version that is not known.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / CONTENTS).is_file():
            raise InputError(f"{folder} is no whole checkpoint: {CONTENTS} lacks; its first save was cut short")
        try:
            saved = torch.load(folder / CONTENTS, map_location="cpu", weights_only=True)
            version, files, self.contents = saved.get("version", 1), saved["files"], dict(saved["contents"])
        except Exception as error:  # torch raises a different class for each way in which a file can be broken
            raise damaged(folder / CONTENTS, error) from error
        if version not in (1, VERSION):
            raise InputError(
                f"{folder} is a checkpoint folder of version {version}; this arclight reads versions 1 and {VERSION}"
            )
        self.digests: dict[str, str] = {} if version == 1 else files
        self.files = {name: self._open(name) for name in files}

    def _open(self, name: Any) -> Any:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{self.folder} cannot be read as a checkpoint: {name!r} is no name of a file in it")
        if not (self.folder / name).is_file():
            raise InputError(f"{self.folder} is no whole checkpoint: {name} lacks, the part of one process")
        try:
            return safe_open(self.folder / name, framework="pt")
        except (SafetensorError, OSError) as error:
            raise damaged(self.folder / name, error) from error

    def rows(self, name: str, like: Tensor, start: int, stop: int) -> Tensor:
        """The rows from `start` to before `stop` of a tensor; each file holds some, and those of the next file follow them."""
        parts, first = [like.new_empty((0, *like.shape[1:]), device="cpu")], 0
        for file_name, file in self.files.items():
            try:
                part = file.get_slice(name)
                length = part.get_shape()[0]
                if max(start, first) < min(stop, first + length):
                    parts.append(part[max(start - first, 0) : min(stop - first, length)])
            except SafetensorError as error:
                raise damaged(self.folder / file_name, error) from error
            first += length
        if first != len(like):
            raise InputError(f"{self.folder} cannot be read as a checkpoint: {name} has {first} rows instead of {len(like)}")
        return torch.cat(parts)


def damaged(path: Path, error: Exception) -> InputError:
    """What to raise for a file that cannot be read."""
    return InputError(f"{path} cannot be read as a checkpoint: {str(error).strip().partition(chr(10))[0]}")


def read(
    folder: Path, *, take: Callable[[Stored, str, Tensor], Tensor] = take_whole, leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """What a checkpoint folder holds, as the dictionary that a checkpoint of one file would be.

    Args:
        folder: the checkpoint.
        take: (files, name, a tensor without values of its shape) -> what to hand out for a tensor that is spread; all of it.
        leave_out: entries whose tensors nobody wants: they stay without values.

    Raises:
        InputError: when a file lacks or is damaged; names it.
    """
    stored = Stored(folder)

    def fill(node: Any, path: str) -> Any:
        if isinstance(node, Tensor) and node.is_meta:
            try:
                return take(stored, path, node)
            except InputError:
                raise
            except (IndexError, TypeError, RuntimeError) as error:  # shapes that do not go together
                raise damaged(folder, error) from error
        if isinstance(node, Mapping):
            return {key: fill(value, f"{path}/{key}") for key, value in node.items()}
        if isinstance(node, list):
            return [fill(value, f"{path}/{position}") for position, value in enumerate(node)]
        return node

    return {key: value if key in leave_out else fill(value, f"/{key}") for key, value in stored.contents.items()}
