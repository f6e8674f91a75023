"""`metrics.csv` as the record of a run, which every other logger of a resumed run is brought up to."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

NAME = "metrics.csv"
ROWS = "metrics_rows"  # key of their number in a checkpoint

Row = dict[str, str]  # without empty cells


@dataclass
class Record:
    """The rows of metrics.csv from which a run resumes; a new run has none.

    Attributes:
        after_step: optimizer steps that a resumed run has done.
        rows: of these steps, in the order in which they were logged.
        found: all rows before the resumed run leaves out those that it repeats.
        num_rows: in metrics.csv by now, those that are not on the disk yet included.
    """

    after_step: int = 0
    rows: list[Row] = field(default_factory=list)
    found: list[Row] = field(default_factory=list)
    num_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_rows = len(self.rows)

    @classmethod
    def read(cls, run_dir: Path, after_step: int, num_rows: int | None = None) -> Record:
        """Returns the rows that belong to a checkpoint.

        Args:
            run_dir: of the run.
            after_step: optimizer steps before the checkpoint.
            num_rows: in metrics.csv when it was saved; None where the checkpoint does not hold it.
        """
        found = read_rows(run_dir / NAME) if (run_dir / NAME).is_file() else []
        if not after_step:
            kept = []
        elif num_rows is None:
            kept = [row for row in found if not is_test(row) and step_of(row) + is_validation(row) <= after_step]
        else:  # Lightning logs the metrics of a step after the step has been saved, under the number of the steps before it
            kept = [row for place, row in enumerate(found) if place < num_rows or step_of(row) < after_step]
        return cls(after_step, kept, found)


class RecordedRows(Callback):
    """Stores in every checkpoint how many rows of metrics.csv were logged before it."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[ROWS] = self.record.num_rows


class Repeats:
    """Finds out which metrics a logger has recorded before a kill, so that the resumed run records none of them twice.

    Args:
        recorded: name and step of each metric that is recorded.
    """

    def __init__(self, recorded: Iterable[tuple[str, int]]) -> None:
        self._recorded = Counter(recorded)

    def new(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
        """Returns the metrics that are not recorded at this step; each recorded one is left out as often as it is there."""
        new = {}
        for key, value in metrics.items():
            if step is not None and self._recorded[key, step] > 0:
                self._recorded[key, step] -= 1
            else:
                new[key] = value
        return new


def read_rows(file: Path) -> list[Row]:
    """Returns the rows of a metrics.csv; truncated and invalid lines are left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [{key: value for key, value in row.items() if key and value} for row in rows if (row.get("step") or "").isdigit()]


def step_of(row: Mapping[str, str]) -> int:
    return int(row["step"])


def metrics_of(row: Mapping[str, str]) -> dict[str, float]:
    """Returns the metrics of a row; texts, which only the CSV file accepts, are left out."""
    metrics = {}
    for key, value in row.items():
        try:
            metrics[key] = float(value)
        except ValueError:
            continue
    metrics.pop("step", None)
    return metrics


def is_validation(row: Mapping[str, str]) -> bool:
    return any(key.startswith("val/") for key in row)


def is_test(row: Mapping[str, str]) -> bool:
    return any(key.startswith("test/") for key in row)
