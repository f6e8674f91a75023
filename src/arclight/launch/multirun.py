"""A multirun: a run that fails does not stop the others; a table and the exit status report how each ended."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.table import Table

from arclight.config.compose import in_multirun, overrides_of, print_error
from arclight.config.redaction import hide_in_override
from arclight.console.terminal import format_metric, open_console, print_lines, print_tables
from arclight.errors import InputError, ProcessError
from arclight.runs.run_directory import read_results, write_status

LONGEST_ERROR = 100  # characters shown in the table; results.json has the whole message


@contextmanager
def continue_on_error() -> Iterator[None]:
    """Context manager that reports the error of one run of a multirun and writes it to results.json; else it does nothing."""
    try:
        yield
    except (InputError, ProcessError) as error:
        if not in_multirun():
            raise
        print_error(error)
        folder, hydra = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get()
        write_status(folder, "failed", str(error))
        if not (folder / "overrides.txt").exists():  # for the summary table
            lines = (f"{hide_in_override(override)}\n" for override in hydra.overrides.task)
            (folder / "overrides.txt").write_text("".join(lines), encoding="utf-8")


class MultirunTable(Callback):
    """Prints the runs of a multirun once all have ended; exits with status 1 when one of them failed."""

    def on_job_start(self, config: DictConfig, task_function: Any = None) -> None:  # type: ignore[override]
        """Removes Hydra's multirun.yaml, which holds overrides with secrets; each run directory has its own config."""
        Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, config_name: str | None = None) -> None:  # type: ignore[override]
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((file.parent for file in folder.glob("*/results.json")), key=job_number)
        results = [read_results(run) for run in runs]
        console = open_console()
        print_tables(console, [to_table(runs, results)])
        print_lines(console, [f"runs: {folder}"])
        if any(result.get("status") != "finished" for result in results):
            sys.exit(1)


def job_number(run: Path) -> int:
    """Returns the number of a run in its multirun, the first part of its name."""
    digits = run.name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def to_table(runs: list[Path], results: list[dict[str, Any]]) -> Table:
    """Returns a table with a row for each run: the overrides that differ, status, scores and time."""
    varying = varying_overrides(overrides_of(run) for run in runs)
    scores = sorted({key for result in results for key in result if key.startswith("test/") and key.count("/") == 1})
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for heading in ("run", "overrides", "status", "best", *scores, "seconds"):
        table.add_column(heading, justify="left" if heading in ("overrides", "status") else "right", overflow="fold")
    for run, overrides, result in zip(runs, varying, results, strict=True):
        status, error = str(result.get("status", "running")), str(result.get("error", "")).splitlines()
        outcome = f"{status}: {error[0][:LONGEST_ERROR]}" if error else status
        numbers = [result.get(str(result.get("monitor"))), *(result.get(key) for key in scores)]
        cells = ["" if value is None else format_metric(value) for value in numbers]
        total = result.get("time/total_s")
        table.add_row(str(job_number(run)), " ".join(overrides), outcome, *cells, "" if total is None else f"{total:.0f}")
    return table


def varying_overrides(overrides: Iterable[tuple[str, ...]]) -> list[list[str]]:
    """Returns the overrides of each run that not all runs share."""
    lists = list(overrides)
    shared = set.intersection(*map(set, lists)) if lists else set()
    return [[override for override in own if override not in shared] for own in lists]
