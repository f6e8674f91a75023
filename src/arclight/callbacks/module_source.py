"""Notices that the code of a module has changed since the checkpoint that a run resumes from."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

KEY = "sources"  # in a checkpoint
OF_LIBRARIES = ("torch", "lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "builtins")

log = logging.getLogger(__name__)


class ModuleSource(Callback):
    """Stores a hash of the source of each class in the module, and logs a warning where a resumed run has another."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = sources_of(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        before = checkpoint.get(KEY, {})
        changed = [name for name, source in sources_of(pl_module).items() if before.get(name, source) != source]
        if changed and trainer.is_global_zero:
            log.warning(
                "the source of %s has changed since this run saved its checkpoint: the run continues with the code of now",
                ", ".join(changed),
            )


def sources_of(module: LightningModule) -> dict[str, str]:
    """Returns the hash of the source of each class of a module and its children, by dotted name; libraries' are left out."""
    classes = dict.fromkeys(cls for inner in module.modules() for cls in type(inner).__mro__)
    hashes = {cls: source_of(cls) for cls in classes if cls.__module__.partition(".")[0] not in OF_LIBRARIES}
    return {f"{cls.__module__}.{cls.__qualname__}": found for cls, found in hashes.items() if found}


@functools.cache
def source_of(cls: type) -> str:
    """Returns the hash of a class's source; empty where there is none to read."""
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()
    except (OSError, TypeError):  # of a notebook or built in C
        return ""
