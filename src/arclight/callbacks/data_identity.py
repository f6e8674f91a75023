"""Which data a run trains on: sizes, metadata and a fingerprint of the content, stored in every checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from arclight.callbacks.exact_resume import train_loaders
from arclight.checkpoint.contents import load_checkpoint
from arclight.data.exact_loader import ExactLoader
from arclight.data.fingerprint import fingerprint_of
from arclight.data.info import to_plain
from arclight.distributed.rendezvous import broadcast
from arclight.errors import OtherDataError
from arclight.interfaces import DataInfo

KEY = "data_identity"  # in a checkpoint

log = logging.getLogger(__name__)


class DataIdentity(Callback):
    """Stores the identity of the training data in every checkpoint, and refuses to resume on other data.

    Args:
        ckpt_path: the checkpoint to resume from; None for a new run.
        may_differ: whether other data is only logged (`resume_with_changes=true`).
    """

    def __init__(self, ckpt_path: Path | None, *, may_differ: bool = False) -> None:
        super().__init__()
        self.ckpt_path = ckpt_path
        self.may_differ = may_differ
        self.when_accepted: Callable[[], Any] = dict  # called once training starts
        self._identity: dict[str, Any] = {}

    def check(self, identity: dict[str, Any], share: Callable[[str], str] = broadcast) -> None:
        """Raises OtherDataError on every process when the first one's data is not that of the checkpoint.

        Args:
            identity: of the data of now.
            share: returns the first process's text on every process; all of them must call this.
        """
        self._identity = identity
        if self.ckpt_path is None:
            return
        checkpoint = load_checkpoint(self.ckpt_path)
        before = {**checkpoint.get(KEY, {}), "data_info": (checkpoint.get("arclight") or {}).get("data_info")}
        message = share("; ".join(differences(before, identity)))
        if message and not self.may_differ:
            raise OtherDataError(
                f"{self.ckpt_path} was trained on other data: {message}. Train on this data in a new run, without resume, or "
                "add resume_with_changes=true"
            )
        if message:
            log.warning("resumed on other data: %s", message)
            self.ckpt_path = None  # once is enough

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        self.check(identity_of(data, train_loaders(trainer)) if trainer.is_global_zero else {}, trainer.strategy.broadcast)
        self.when_accepted()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {key: value for key, value in self._identity.items() if key != "data_info"}


def identity_of(data: Any, loaders: Iterable[Any] = ()) -> dict[str, Any]:
    """Returns what tells two data sets apart, as plain values: `sizes` by split, `data_info`, `fingerprint`; None if unknown.

    Args:
        data: a data module that is set up for training; None where the LightningModule has the loaders.
        loaders: of training, whose data sets are read where the data module offers no fingerprint.
    """
    info = getattr(data, "data_info", None)
    sizes = getattr(data, "sizes", None)
    exact = [loader for loader in loaders if isinstance(loader, ExactLoader)]
    if not isinstance(sizes, Mapping):
        sizes = {f"train {number}" if number else "train": len(loader.dataset) for number, loader in enumerate(exact)}
    offered = getattr(data, "fingerprint", None)
    fingerprint = offered() if callable(offered) else fingerprint_of([loader.dataset for loader in exact])
    return {
        "sizes": {str(split): int(size) for split, size in sizes.items() if split != "test"},
        "data_info": to_plain(info) if isinstance(info, DataInfo) else None,
        "fingerprint": fingerprint,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in words how the identity of a checkpoint's data differs from that of now; what either lacks is equal."""
    sizes, sizes_now = before.get("sizes") or {}, now.get("sizes") or {}
    found = [
        f"{sizes[name]} samples in {name}, now {size}" for name, size in sizes_now.items() if sizes.get(name, size) != size
    ]
    info, info_now = (json.loads(json.dumps(one.get("data_info") or {}, default=str)) for one in (before, now))
    # numbers such as the mean of all pixels depend on the machine; the fingerprint covers what they are computed from
    names = [name for name, value in info_now.items() if info and not any(isinstance(one, float) for one in as_list(value))]
    different = [name for name in names if info.get(name) != info_now[name]]
    found += [f"{name} {short(info.get(name))}, now {short(info_now[name])}" for name in different]
    fingerprints = before.get("fingerprint"), now.get("fingerprint")
    if not found and all(fingerprints) and fingerprints[0] != fingerprints[1]:
        found.append("as many samples, but with other content")
    return found


def as_list(value: Any) -> list[Any]:
    """Returns the elements of a list, or the value as the only one."""
    return value if isinstance(value, list) else [value]


def short(value: Any) -> str:
    """Returns a value as text that fits a message."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
