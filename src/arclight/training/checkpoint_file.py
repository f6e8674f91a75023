"""Checkpoints of one file: in place whole or not at all, and looked through before anything is taken from them.

The file is the zip that torch writes. It holds a CRC-32 beside each of its entries, which torch itself does not look at when it
loads; `check` does.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from arclight.errors import InputError
from arclight.training.checkpoint_folder import read

LAST, PREVIOUS = "last.ckpt", "last.previous.ckpt"
SPARE = 1.02  # what a file takes beyond its tensors

log = logging.getLogger(__name__)


class NotWrittenError(OSError):
    """A file could not be written; what was there before is there still."""


def write(file: Path, save: Any, *, num_bytes: int, previous: Path | None = None) -> None:
    """Puts a file in place in one step, once all of it is on the disk.

    Args:
        file: to write.
        save: writes the content to the binary stream that it is given.
        num_bytes: what it will take, about.
        previous: what the file that was there before is called from now on; None lets it go.

    Raises:
        NotWrittenError: when the disk has no room for it, or does not take it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    free = shutil.disk_usage(file.parent).free
    problem = f"{file} could not be written: it takes {num_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there"
    if free < num_bytes:
        raise NotWrittenError(problem)
    try:
        with part.open("wb") as stream:
            save(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and file.is_file():
            keep(file, previous)
        part.replace(file)
        sync_folder(file.parent)
    except (OSError, RuntimeError) as error:  # torch has its own error for what its stream does not take
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) or "inline_container" in str(error):
            raise NotWrittenError(f"{problem} ({str(error).splitlines()[0]})") from error
        raise


def keep(file: Path, previous: Path) -> None:
    """Gives the file another name besides its own, so that at no moment it has none."""
    link = previous.with_name(f"{previous.name}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(file, link)
    except OSError:  # a file system without links
        file.replace(previous)
    else:
        link.replace(previous)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a machine that loses its power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def count_bytes(node: Any) -> int:
    """Of the tensors in nested content; those that share their memory count as often as they stand there."""
    if isinstance(node, Tensor):
        return node.numel() * node.element_size()
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return sum(count_bytes(child) for child in children)


def check(file: Path) -> None:
    """Looks through all of a checkpoint file.

    Raises:
        InputError: when it is empty, cut short, or any of its content has changed since it was written.
    """
    facts = file.stat()
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


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints for all strategies but fsdp, which with this go on from a folder of fsdp, too.

    Where the disk is full, the last checkpoint stays what it was, a warning tells, and training goes on. A best one that cannot
    be kept ends the run: its weights would be gone.

    Args:
        keep_previous: keeps the last checkpoint but one.
        safetensors: writes the weights of the best one to `best.safetensors`, too.
    """

    def __init__(self, *, keep_previous: bool = False, safetensors: bool = False) -> None:
        super().__init__()
        self.keep_previous = keep_previous
        self.safetensors = safetensors

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        return read(Path(path)) if Path(path).is_dir() else super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        file = Path(path)
        try:
            self._save(checkpoint, file)
        except NotWrittenError as error:
            if file.name != LAST:
                raise InputError(f"{error}; make room, then go on with resume=auto") from error
            log.warning("%s; training goes on, and the next save tries again", error)

    def _save(self, checkpoint: dict[str, Any], file: Path) -> None:
        num_bytes = int(count_bytes(checkpoint) * SPARE)
        target = file.with_name(f"{file.name}.whole") if file.is_dir() else file
        previous = file.with_name(PREVIOUS) if self.keep_previous and file.name == LAST else None
        write(target, functools.partial(torch.save, checkpoint), num_bytes=num_bytes, previous=previous)
        if target != file:  # a folder of fsdp
            shutil.rmtree(file)
            target.rename(file)
        if self.safetensors and file.stem == "best":
            write_weights(file.with_suffix(".safetensors"), checkpoint["state_dict"])


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """The weights alone as safetensors, which any other program reads; raises as `write`."""
    from safetensors.torch import save

    own = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}
    write(file, lambda stream: stream.write(save(own)), num_bytes=count_bytes(own))
