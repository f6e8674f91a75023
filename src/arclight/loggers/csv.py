"""`metrics.csv`: every row that a run has logged, also of a run that was killed and resumed."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from arclight.config.atomic_file import write_atomically
from arclight.console.terminal import relative_path
from arclight.distributed.environment import is_main_process

NAME = "metrics.csv"

log = logging.getLogger(__name__)


class ResumableCSVLogger(CSVLogger):
    """Lightning's logger, which keeps the rows up to step `after_step` of a resumed run."""

    def __init__(self, run_dir: Path, *, after_step: int) -> None:
        super().__init__(run_dir, name="", version="")
        if is_main_process():
            self._experiment = MetricsFile(run_dir, rows_until(run_dir / NAME, after_step) if after_step else [])

    def location(self) -> str:
        return relative_path(Path(self.save_dir) / NAME)


class MetricsFile(ExperimentWriter):
    """Lightning's writer of metrics.csv, starting with the rows it is given.

    Where Lightning's truncates the file and writes it again, at the start and at a metric's first value, this one replaces it
    atomically: a kill at any moment costs no rows.
    """

    def __init__(self, run_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file = run_dir / NAME
        columns = sorted({key for row in rows for key in row})
        run_dir.mkdir(parents=True, exist_ok=True)
        if rows:
            self._write(columns, rows)
        else:
            self._file.unlink(missing_ok=True)
        super().__init__(str(run_dir))
        self.metrics_keys = columns

    def __getattr__(self, name: str) -> Any:
        """Returns a function that does nothing, for a module that calls `add_image` and the like on every logger."""
        if name.startswith("_"):
            raise AttributeError(name)
        log.debug("metrics.csv holds numbers only: %s does nothing", name)
        return lambda *args, **kwargs: None

    def _check_log_dir_exists(self) -> None:
        """Keeps existing files; Lightning's removes them."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(fieldnames, read_rows(self._file))

    def _write(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._file, stream.getvalue())


def read_rows(file: Path) -> list[dict[str, str]]:
    """Returns the rows of a metrics.csv without their empty cells; truncated and invalid lines are left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [{key: value for key, value in row.items() if key and value} for row in rows if (row.get("step") or "").isdigit()]


def rows_until(file: Path, step: int) -> list[dict[str, str]]:
    """Returns the rows of the first `step` optimizer steps without the test, which is repeated; none without a file."""
    if not file.is_file():
        return []
    rows = [row for row in read_rows(file) if not any(key.startswith("test/") for key in row)]
    # Lightning logs a validation under the step before the one that it follows
    return [row for row in rows if int(row["step"]) + is_validation(row) <= step]


def rows_between(file: Path, recorded: int, step: int) -> list[dict[str, str]]:
    """Returns the rows of `rows_until` that are missing in a logger which recorded up to step `recorded`."""
    rows = rows_until(file, step)
    return [row for row in rows if int(row["step"]) > recorded or (int(row["step"]) == recorded and is_validation(row))]


def is_validation(row: Mapping[str, Any]) -> bool:
    return any(key.startswith("val/") for key in row)
