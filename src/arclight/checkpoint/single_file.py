"""Checkpoints of one file, as all strategies but fsdp write them; what becomes of a run when one cannot be written."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from arclight.checkpoint.atomic_write import (
    LAST,
    NotWrittenError,
    count_bytes,
    keep_earlier,
    save_with_torch,
    take_the_place,
    write,
)
from arclight.checkpoint.sharded import read
from arclight.errors import InputError

SPARE = 1.02  # what a file takes beyond its tensors

log = logging.getLogger(__name__)


def warn_not_written(path: Path, problem: str) -> None:
    """Warns that the last checkpoint stays what it was, and lets the training go on; any other ends the run.

    Raises:
        InputError: when it is a best one: its weights would be gone.
    """
    if path.name != LAST:
        raise InputError(f"{problem}; make room, then go on with resume=auto")
    log.warning("%s; it stays as it was, and the next save tries again", problem)


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints for all strategies but fsdp, which with this go on from a folder of fsdp, too.

    Where the disk is full, the last checkpoint stays what it was, a warning tells, and training goes on. A best one that cannot
    be kept ends the run: its weights would be gone.

    Args:
        keep: how many of the last ones stay.
        safetensors: writes the weights of the best one to `best.safetensors`, too.
    """

    def __init__(self, *, keep: int = 1, safetensors: bool = False) -> None:
        super().__init__()
        self.keep = keep
        self.safetensors = safetensors

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        return read(Path(path)) if Path(path).is_dir() else super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        file = Path(path)
        try:
            self._save(checkpoint, file)
        except NotWrittenError as error:
            warn_not_written(file, str(error))

    def _save(self, checkpoint: dict[str, Any], file: Path) -> None:
        num_bytes = int(count_bytes(checkpoint) * SPARE)
        target = file.with_name(f"{file.name}.whole") if file.is_dir() else file  # a folder of fsdp
        before = functools.partial(keep_earlier, file, self.keep) if file.name == LAST else None
        write(target, functools.partial(save_with_torch, checkpoint), num_bytes=num_bytes, before=before)
        if target != file:
            take_the_place(target, file)
        if self.safetensors and file.stem == "best":
            write_weights(file.with_suffix(".safetensors"), checkpoint["state_dict"])


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """The weights alone as safetensors, which any other program reads; raises as `write`."""
    from safetensors.torch import save_file

    own = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}
    write(file, functools.partial(save_file, own), num_bytes=count_bytes(own))
