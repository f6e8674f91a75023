"""A grid of runs: one that fails does not end the others; a table and the exit status say what became of each."""

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

from arclight.config.compose import in_multirun, overrides_of, tell
from arclight.console.terminal import open_console, say, show
from arclight.errors import InputError, ProcessError
from arclight.runs.run_directory import read_results, write_status

LONGEST_ERROR = 100  # characters of it that the table shows; the run's folder has it whole


@contextmanager
def job() -> Iterator[None]:
    """Inside, what ends one run of a grid is told and marked in its folder, and the others go on; elsewhere it is nothing."""
    try:
        yield
    except (InputError, ProcessError) as error:
        if not in_multirun():
            raise
        tell(error)
        write_status(Path(HydraConfig.get().runtime.output_dir), "failed", str(error))


class MultirunTable(Callback):
    """Prints the runs of a grid once all have ended, here or elsewhere; exit status 1 when one of them failed."""

    def on_job_start(self, config: DictConfig, task_function: Any = None) -> None:  # type: ignore[override]
        """Takes away Hydra's file of the grid, which holds the overrides with all secrets; each run's folder has its own."""
        Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, config_name: str | None = None) -> None:  # type: ignore[override]
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((file.parent for file in folder.glob("*/results.json")), key=number)
        results = [read_results(run) for run in runs]
        console = open_console()
        show(console, [table(runs, results)])
        say(console, [f"runs: {folder}"])
        if any(result.get("status") != "finished" for result in results):
            sys.exit(1)


def number(run: Path) -> int:
    """Of a run in its grid."""
    digits = run.name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def table(runs: list[Path], results: list[dict[str, Any]]) -> Table:
    """One row a run: what sets it apart, how it ended, its scores."""
    varying = vary(overrides_of(run) for run in runs)
    scores = sorted({key for result in results for key in result if key.startswith("test/") and key.count("/") == 1})
    shown = Table(title=f"{len(runs)} runs", title_justify="left")
    for heading in ("run", "overrides", "status", "best", *scores, "seconds"):
        shown.add_column(heading, justify="left" if heading in ("overrides", "status") else "right", overflow="fold")
    for run, own, result in zip(runs, varying, results, strict=True):
        status, error = str(result.get("status", "running")), str(result.get("error", "")).splitlines()
        ending = f"{status}: {error[0][:LONGEST_ERROR]}" if error else status
        numbers = [result.get(str(result.get("monitor"))), *(result.get(key) for key in scores)]
        cells = ["" if value is None else f"{value:.4f}" for value in numbers]
        total = result.get("time/total_s")
        shown.add_row(str(number(run)), " ".join(own), ending, *cells, "" if total is None else f"{total:.0f}")
    return shown


def vary(overrides: Iterable[tuple[str, ...]]) -> list[list[str]]:
    """Of each run's overrides those that not all runs share."""
    lists = list(overrides)
    shared = set.intersection(*(set(own) for own in lists)) if lists else set()
    return [[override for override in own if override not in shared] for own in lists]
