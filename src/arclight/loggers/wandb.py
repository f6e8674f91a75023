"""A run of Weights & Biases: online where possible, else offline; a resumed run keeps its id."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import wandb
from lightning.pytorch.loggers import WandbLogger

from arclight.config.atomic_file import read_json
from arclight.console.terminal import relative_path
from arclight.distributed.environment import is_main_process
from arclight.distributed.rendezvous import broadcast
from arclight.errors import InputError, first_line
from arclight.loggers.artifacts import FILES, TABLES, Artifact
from arclight.loggers.record import Record, Repeats, metrics_of, step_of
from arclight.loggers.run_ids import SWEEP, read_id, write_id

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline"]
AXIS = "trainer/global_step"  # the key of the optimizer step in Lightning's logger
ROW = "arclight/row"  # the number of a row in metrics.csv, counted from 1; W&B shows no curve of it
START_S, UPLOAD_S = 30.0, 300.0  # timeouts of the server at the start and of the upload at the end
READ_S, WRITE_S = 60.0, 5.0  # timeouts for W&B to read an offline run and to write the end of one
RELEASE_S = 20.0  # for W&B's process to end after a failure
INSPECT_ERRORS = (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError)


class ResumableWandbLogger(WandbLogger):
    """Lightning's logger for a run that `start_run` started; it uploads `artifacts` at the end."""

    is_slow = True
    timeout_s = UPLOAD_S + 60.0

    def __init__(
        self,
        *,
        name: str,
        save_dir: Path,
        project: str,
        experiment: Any,
        artifacts: Sequence[Artifact],
        record: Record,
        repeats: Repeats,
    ) -> None:
        super().__init__(name=name, save_dir=save_dir, project=project, experiment=experiment)
        self.artifacts = tuple(artifacts)
        self._record, self._repeats = record, repeats

    def stamped(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns the metrics with the number of their row in metrics.csv."""
        return {**metrics, ROW: self._record.num_rows}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs those metrics that W&B has not recorded before a kill."""
        new = self._repeats.new({key: value for key, value in metrics.items() if key != ROW}, step)
        if new:
            super().log_metrics({key: value for key, value in metrics.items() if key in new or key == ROW}, step)

    def location(self) -> str:
        run = self.experiment
        return f"wandb leet {relative_path(Path(str(self.save_dir), 'wandb'))}" if run.offline else str(run.url)

    def upload_artifacts(self, run_dir: Path) -> None:
        """Fills the summary of the run, then uploads the artifacts as files or tables."""
        run = self.experiment
        run.summary.update(read_json(run_dir / "results.json"))
        for name in self.artifacts:
            path = run_dir / FILES[name]
            if not path.exists():
                continue
            if name in ("report", "checkpoint"):
                artifact = wandb.Artifact(f"{name}-{run.id}", type="model" if name == "checkpoint" else name)
                (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
                run.log_artifact(artifact)
                continue
            columns, rows = TABLES[name](path)
            if "image" in columns:
                place = columns.index("image")
                rows = [[*row[:place], wandb.Image(row[place]), *row[place + 1 :]] for row in rows]
            panel: Any = wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)
            if name == "confusion":  # W&B's own chart of a matrix
                fields = dict(zip(("Actual", "Predicted", "nPredictions"), columns, strict=True))
                panel = wandb.plot_table("wandb/confusion_matrix/v1", panel, fields, {"title": "test"})
            run.log({f"test/{name}": panel})

    def end(self, status: str) -> None:
        """Finishes the run, with exit code 1 when it did not finish."""
        if self._experiment is not None:  # None on other processes than the first, unless all record their system metrics
            self._experiment.finish(exit_code=0 if status == "finished" else 1)
            if self._experiment.offline:
                place = Path(str(self.save_dir), "wandb")
                line = f"View this run in the terminal: wandb leet {place}; upload it: wandb sync {place}/offline-run-*"
                sys.stderr.write(f"wandb: {line}\n")
                warn_if_incomplete(Path(self._experiment.settings.sync_file))

    def release(self) -> None:
        """Drops a W&B process that has died or hangs, so that the next run of this process starts a new one."""

        def teardown() -> None:
            with contextlib.suppress(Exception):
                wandb.teardown()

        ending = threading.Thread(target=teardown, daemon=True)
        ending.start()
        ending.join(RELEASE_S)
        if ending.is_alive():
            for process in psutil.Process().children():
                if process.name() == "wandb-core":
                    process.kill()
            ending.join(RELEASE_S)


def warn_if_incomplete(file: Path) -> None:
    """Warns when the file of an offline run has no end, for example because the disk was full for a moment.

    W&B writes the end last, maybe shortly after `finish` returns, and nothing at all after a failed write, which it does not
    report.
    """
    until = time.monotonic() + WRITE_S
    while True:
        with contextlib.suppress(*INSPECT_ERRORS):
            if inspect_file(file)["exit_code"] is not None:
                return
        if time.monotonic() >= until:
            break
    free = shutil.disk_usage(next(directory for directory in file.parents if directory.is_dir())).free
    message = "W&B did not write the whole run to %s (%.1f MB free there): W&B lost the rest; metrics.csv has every number"
    log.warning(message, file, free / 1e6)


def start_run(
    run_dir: Path, described: dict[str, Any], *, mode: Mode, record: Record, all_processes: bool = False
) -> tuple[wandb.Run | None, Repeats]:
    """Returns the W&B run of this directory, new or resumed, and what it recorded; None on other processes than the main one.

    With `all_processes` every process must call, and all get the run if it is online. `described` are `name`, `group`, `tags`,
    `project` and `entity` of `wandb.init`; the other arguments are those of `factory.wandb`.

    Raises:
        InputError: when `mode` or `all_processes` requires an account and there is none.
    """
    if not all_processes:
        return start_main(run_dir, described, mode=mode, record=record) if is_main_process() else (None, Repeats(()))
    if mode == "offline":
        raise InputError(
            "logger.wandb.all_processes=true needs W&B online: processes share a run only on its server. "
            "Try: logger.wandb.mode=auto"
        )
    run, run_id, repeats = None, "", Repeats(())
    try:
        if is_main_process():
            run, repeats = start_main(run_dir, described, mode=mode, record=record, all_processes=True)
            run_id = run.id if run.settings.mode == "shared" else ""
            if not run_id:
                log.warning("logger.wandb.all_processes=true has no effect offline: only the main process is recorded")
    finally:
        run_id = broadcast(run_id)  # also after an error: the others wait for it
    if run is None and run_id:
        settings = settings_of_process()
        run = wandb.init(id=run_id, dir=run_dir.absolute(), mode="shared", settings=settings, **paths_of(described))
    return run, repeats


def start_main(
    run_dir: Path, described: dict[str, Any], *, mode: Mode, record: Record, all_processes: bool = False
) -> tuple[wandb.Run, Repeats]:
    """Does the work of `start_run` on the main process."""
    run = None
    # absolute: the process of W&B outlives a run, and may have been started in another working directory
    shown: dict[str, Any] = {key: described[key] for key in ("name", "group", "tags") if key in described}
    given: dict[str, Any] = {"dir": run_dir.absolute(), **shown, **paths_of(described)}
    if not os.environ.get(SWEEP):  # which sets the id
        given["id"] = read_id(run_dir, "wandb") or secrets.token_hex(4)
    if os.environ.get("WANDB_MODE") == "disabled" and mode == "auto":
        return wandb.init(mode="disabled"), Repeats(())
    if is_online(mode):
        try:
            settings = settings_of_process() if all_processes else wandb.Settings()
            settings.init_timeout, settings.finish_timeout = START_S, UPLOAD_S
            how: dict[str, Any] = {"mode": "shared"} if all_processes else {"mode": "online", "resume": "allow"}
            run = wandb.init(**given, **how, settings=settings)
        except wandb.errors.Error as error:
            log.warning("W&B does not start online (%s): recording offline", first_line(error))
    last_row = None  # of an offline run
    if run is None:
        recorded = recorded_offline(run_dir)
        last_row = max((row["_step"] for row in recorded), default=None)
        run = wandb.init(**given, mode="offline", settings=wandb.Settings(silent=True))  # else it prints 33 lines
        log.info("W&B: offline; `wandb leet %s` shows the run, `wandb sync` uploads it", run_dir / "wandb")
    else:  # the server knows how many rows of metrics.csv it has
        rows = record.found[: int(run.summary.get(ROW) or 0)]
        recorded = [{**metrics_of(row), AXIS: step_of(row)} for row in rows]
    write_id(run_dir, "wandb", run.id)
    run.define_metric(AXIS)
    run.define_metric(ROW, hidden=True)
    run.define_metric("*", step_metric=AXIS, step_sync=True)
    repeats = Repeats((key, int(row[AXIS])) for row in recorded for key in row)
    catch_up(run, record, repeats, last_row)
    return run, repeats


def catch_up(run: wandb.Run, record: Record, repeats: Repeats, last_row: int | None) -> None:
    """Records the rows of metrics.csv that are missing in W&B: a killed process loses its last seconds.

    An offline run numbers its rows from 0 at each start, and the server accepts no number twice, so numbering continues after
    `last_row`.
    """
    rows = [(number, step_of(row), repeats.new(metrics_of(row), step_of(row))) for number, row in enumerate(record.rows, 1)]
    missing: list[dict[str, Any]] = [{**new, AXIS: step, ROW: number} for number, step, new in rows if new]
    first = None if last_row is None else last_row + 1
    if first and not missing:
        missing = [{AXIS: record.after_step}]
    for row in missing:
        run.log(row, step=first, commit=True)
        first = None


def recorded_offline(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows that W&B recorded offline in a run directory."""
    rows = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        try:
            records = map(json.loads, inspect(path).splitlines())
            found = [record["history"]["item"] for record in records if record["type"] == "history"]
            rows += [row for row in found if row.keys() >= {AXIS, "_step"}]
        except INSPECT_ERRORS as error:
            log.warning("W&B: %s cannot be read (%s); recording its rows again", path, first_line(error))
    return rows


def inspect_file(path: Path) -> dict[str, Any]:
    """Returns what `wandb leet` says of the file of an offline run: its latest `summary`, its `exit_code` and more."""
    return json.loads(inspect(path, "--summary"))


def inspect(path: Path, option: str = "--json") -> str:
    """Returns the content of the file of an offline run as JSON: a line for each record, or with `--summary` one object."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", option, "--json", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=READ_S, check=True).stdout


def is_online(mode: Mode) -> bool:
    """Returns whether this machine is logged in; never prompts, and logs why a login fails.

    Raises:
        InputError: when mode is "online" and there is no account.
    """
    if mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    try:
        if wandb.login(prompt=False, verify=True):
            return True
    except (wandb.errors.Error, OSError) as error:
        log.warning("W&B cannot log in (%s): recording offline", first_line(error))
        return False
    if mode == "online":
        raise InputError(
            "logger.wandb.mode=online: this machine is not logged in to W&B; run `wandb login`, set WANDB_API_KEY, or use "
            "logger.wandb.mode=auto"
        )
    return False


def paths_of(described: dict[str, Any]) -> dict[str, Any]:
    """Returns project and entity; a sweep sets them itself."""
    return {} if os.environ.get(SWEEP) else {key: described[key] for key in ("project", "entity")}


def settings_of_process() -> wandb.Settings:
    """Returns settings that label the process in a shared run; only the main one sets the final status."""
    rank, is_first = os.environ.get("RANK", "0"), is_main_process()
    settings = wandb.Settings(x_label=f"process {rank}", x_primary=is_first, x_update_finish_state=is_first)
    settings.init_timeout, settings.finish_timeout = START_S, UPLOAD_S
    return settings
