"""How far a run has got in its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arclight.checkpoint.contents import load_checkpoint
from arclight.errors import InputError


@dataclass(frozen=True)
class Position:
    """Complete epochs and optimizer steps; `is_inside` says whether another epoch has begun."""

    epochs: int
    steps: int
    is_inside: bool = False

    @classmethod
    def of(cls, path: Path) -> Position:
        """Returns the position of a checkpoint; raises as `load_checkpoint`."""
        contents = load_checkpoint(path)
        epoch = contents["loops"]["fit_loop"]["epoch_progress"]["current"]
        return cls(epoch["processed"], contents["global_step"], epoch["started"] > epoch["processed"])

    def __str__(self) -> str:
        where = f"in epoch {self.epochs + 1}" if self.is_inside else f"after epoch {self.epochs}"
        return f"{where}, after step {self.steps:,}"


def check_end(path: Path, settings: Mapping[str, Any]) -> None:
    """Checks that training does not end before the position of the checkpoint it resumes from.

    Args:
        path: of the checkpoint.
        settings: of the trainer; its ends are compared where they are not those of the checkpoint.

    Raises:
        InputError: naming the end that has passed already.
    """
    before = (load_checkpoint(path).get("arclight") or {}).get("settings", {}).get("trainer", {})
    position = Position.of(path)
    for key, done in (("max_epochs", position.epochs), ("max_steps", position.steps)):
        end = settings.get(key)
        if isinstance(end, int) and 0 <= end < done and end != before.get(key):
            raise InputError(
                f"trainer.{key}={end}: the run has done {done} already; set {done} or more, or train a new run without resume",
                key=f"trainer.{key}",
            )
