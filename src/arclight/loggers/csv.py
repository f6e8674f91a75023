"""`metrics.csv`: every row that a run has logged, whatever moment it was killed at and gone on from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from arclight.config.atomic_file import write_atomically

NAME = "metrics.csv"


class MetricsFile(ExperimentWriter):
    """Lightning's writer of metrics.csv, which holds the rows it is given from the start.

    Where Lightning's would begin a file anew, at the start and when a metric comes for the first time, a new one takes the
    place of the old one at once: there is no moment at which a kill costs rows.

    Args:
        folder: of the run.
        rows: that the run has behind it.
    """

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file = folder / NAME
        columns = sorted({key for row in rows for key in row})
        folder.mkdir(parents=True, exist_ok=True)
        if rows:
            self._put(columns, rows)
        else:
            self._file.unlink(missing_ok=True)
        super().__init__(str(folder))
        self.metrics_keys = columns

    def _check_log_dir_exists(self) -> None:
        """Lightning's own throws away what is there."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._put(fieldnames, read_rows(self._file))

    def _put(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._file, stream.getvalue())


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without their empty cells; a last line that was cut short, or what is no row, is left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    rows = csv.DictReader(whole)
    return [{key: value for key, value in row.items() if key and value} for row in rows if (row.get("step") or "").isdigit()]


def rows_until(file: Path, step: int) -> list[dict[str, str]]:
    """The rows that a run of so many optimizer steps has written, but for its test, which comes again; none without a file."""
    if not file.is_file():
        return []
    kept = [row for row in read_rows(file) if not any(key.startswith("test/") for key in row)]
    # Lightning counts a validation to the step before the one that it follows
    return [row for row in kept if int(row["step"]) + is_validation(row) <= step]


def rows_between(file: Path, recorded: int, step: int) -> list[dict[str, str]]:
    """As `rows_until`, those that a tracker lacks which has recorded up to step `recorded` only."""
    rows = rows_until(file, step)
    return [row for row in rows if int(row["step"]) > recorded or (int(row["step"]) == recorded and is_validation(row))]


def is_validation(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics.csv is of a validation."""
    return any(key.startswith("val/") for key in row)
