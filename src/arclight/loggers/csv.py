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
from arclight.loggers.record import NAME, Record, read_rows

log = logging.getLogger(__name__)


class ResumableCSVLogger(CSVLogger):
    """Lightning's logger, which keeps the rows of a resumed run."""

    def __init__(self, run_dir: Path, *, record: Record) -> None:
        super().__init__(run_dir, name="", version="")
        if is_main_process():
            self._experiment = MetricsFile(run_dir, record)

    def location(self) -> str:
        return relative_path(Path(self.save_dir) / NAME)


class MetricsFile(ExperimentWriter):
    """Lightning's writer of metrics.csv, starting with the rows of the record, whose number it updates.

    Where Lightning's truncates the file and writes it again, at the start and at a metric's first value, this one replaces it
    atomically: a kill at any moment costs no rows.
    """

    def __init__(self, run_dir: Path, record: Record) -> None:
        self._file = run_dir / NAME
        self._record, rows = record, record.rows
        columns = sorted({key for row in rows for key in row})
        run_dir.mkdir(parents=True, exist_ok=True)
        if rows:
            self._write(columns, rows)
        else:
            self._file.unlink(missing_ok=True)
        super().__init__(str(run_dir))
        self.metrics_keys = columns
        self._is_written = bool(rows)

    def save(self) -> None:
        """Writes the rows since the last call; warns when the earlier ones are gone."""
        if self._is_written and not self._file.exists():
            log.warning("%s was deleted while the run trains: earlier rows are lost, later ones are written", self._file)
        super().save()
        self._is_written = self._file.exists()

    def __getattr__(self, name: str) -> Any:
        """Returns a function that does nothing, for a module that calls `add_image` and the like on every logger."""
        if name.startswith("_"):
            raise AttributeError(name)
        log.debug("metrics.csv holds numbers only: %s does nothing", name)
        return lambda *args, **kwargs: None

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics_dict, step)
        self._record.num_rows += 1

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
