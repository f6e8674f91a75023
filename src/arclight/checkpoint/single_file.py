"""Single-file checkpoints, which every strategy but fsdp writes, and what happens when the disk refuses one."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors.torch import save_file

from arclight.checkpoint.atomic_write import (
    LAST,
    NotWrittenError,
    count_bytes,
    keep_previous,
    replace,
    save_with_torch,
    write,
)
from arclight.checkpoint.plain import make_plain
from arclight.checkpoint.sharded import load_sharded
from arclight.errors import InputError

ZIP_OVERHEAD = 1.02  # size of a file relative to its tensors

log = logging.getLogger(__name__)


def handle_not_written(path: Path, problem: str) -> None:
    """Logs a warning for the last checkpoint, which has a previous one; raises InputError for others, lost otherwise."""
    if path.name != LAST:
        raise InputError(f"{problem}; free some space, then resume with resume=auto")
    log.warning("%s; the previous one stays, and the next save tries again", problem)


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoint IO of every strategy but fsdp: atomic writes, `weights_only=True`; loads sharded checkpoints, too.

    Keeps `keep` last checkpoints; with `safetensors` writes the weights of the best one to `best.safetensors`, too.
    """

    def __init__(self, *, keep: int = 1, safetensors: bool = False) -> None:
        super().__init__()
        self.keep = keep
        self.safetensors = safetensors

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        if Path(path).is_dir():
            return load_sharded(Path(path))
        return super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        file = Path(path)
        target = file.with_name(f"{file.name}.new") if file.is_dir() else file  # a sharded checkpoint has this name
        checkpoint = make_plain(checkpoint)
        num_bytes = int(count_bytes(checkpoint) * ZIP_OVERHEAD)
        before = functools.partial(keep_previous, file, self.keep) if file.name == LAST else None
        try:
            write(target, functools.partial(save_with_torch, checkpoint), num_bytes=num_bytes, before_replace=before)
            if target != file:
                replace(file, target)
            if self.safetensors and file.stem == "best":
                weights = {
                    name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in checkpoint["state_dict"].items()
                }
                save = functools.partial(save_file, weights)
                write(file.with_suffix(".safetensors"), save, num_bytes=count_bytes(weights))
        except NotWrittenError as error:
            handle_not_written(file, str(error))
