"""A run of Weights & Biases: online where that works, else offline; under one id however often it goes on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import WandbLogger

from arclight.distributed.environment import is_main_process
from arclight.distributed.rendezvous import broadcast
from arclight.errors import InputError, first_line
from arclight.loggers.artifacts import Artifact
from arclight.loggers.csv import NAME, rows_between
from arclight.loggers.run_ids import SWEEP, id_of, keep_id
from arclight.loggers.wandb_file import has_end

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline"]
AXIS = "trainer/global_step"  # under which Lightning's logger sends the optimizer step
START_S, UPLOAD_S, MORE_S = 30.0, 300.0, 10.0  # for a server to answer at the start; for the rest to go up at the end

READ_S = 60.0  # for W&B to read what an offline run has recorded
WRITE_S = 5.0  # for W&B to write the end of one


class ResumableWandbLogger(WandbLogger):
    """Lightning's logger around a run that was started here; `artifacts` are handed over at the end."""

    patience_s = UPLOAD_S + MORE_S  # W&B itself gives up before

    def __init__(self, *, name: str, save_dir: Path, project: str, experiment: Any, artifacts: Sequence[Artifact]) -> None:
        super().__init__(name=name, save_dir=save_dir, project=project, experiment=experiment)
        self.artifacts = tuple(artifacts)

    def end(self, status: str) -> None:
        """Ends the run; one that has not finished with exit code 1."""
        if self._experiment is not None:  # as on all processes but the first, unless each records its own system metrics
            self._experiment.finish(exit_code=0 if status == "finished" else 1)
            if self._experiment.offline:
                # W&B's own line names no folder
                wandb.termlog(f"Look at this run in the terminal: wandb leet {Path(str(self.save_dir), 'wandb')}")
                tell_loss(Path(self._experiment.settings.sync_file))

    def teardown(self) -> None:
        """Lets go of a W&B process that is gone, so that the next run in this process gets a new one."""
        with contextlib.suppress(Exception):
            wandb.teardown()


def tell_loss(file: Path) -> None:
    """Tells when the file of a run that was recorded offline lacks its end, as where its disk was full for a moment."""
    if not has_end(file, WRITE_S):
        free = shutil.disk_usage(next(folder for folder in file.parents if folder.is_dir())).free
        log.warning(
            "W&B has not written all of the run to %s (%.1f MB are free there): what is not in it is lost to W&B; metrics.csv "
            "has every number",
            file,
            free / 1e6,
        )


def start_run(
    folder: Path, described: dict[str, Any], *, mode: Mode, after_step: int = 0, all_processes: bool = False
) -> wandb.Run | None:
    """The W&B run of this folder: a new one, or that under whose id the folder's run was recorded before.

    Args:
        folder: of the run.
        described: `name`, `group`, `project` and `entity` as of `wandb.init`.
        mode: as of `trackers.wandb`.
        after_step: of a run that goes on, the optimizer steps that it has behind it.
        all_processes: whether every process of the run records its system metrics; every one must call then, and gets the run
            if it is online. Otherwise only the first does.

    Raises:
        InputError: when `mode` or `all_processes` wants an account and there is none.
    """
    if not all_processes:
        return start_first(folder, described, mode=mode, after_step=after_step) if is_main_process() else None
    if mode == "offline":
        raise InputError(
            "logger.wandb.all_processes=true needs W&B online: processes come together in one run on its server only; "
            "take logger.wandb.mode=auto, or leave it out"
        )
    run, run_id = None, ""
    try:
        if is_main_process():
            run = start_first(folder, described, mode=mode, after_step=after_step, all_processes=True)
            run_id = run.id if run.settings.mode == "shared" else ""
            if not run_id:
                log.warning("logger.wandb.all_processes=true has no effect offline: the first process alone is recorded")
    finally:
        run_id = broadcast(run_id)  # also when it has failed: the others wait for its word
    if run is None and run_id:
        run = wandb.init(id=run_id, dir=folder, mode="shared", settings=settings_of_process(), **paths_of(described))
    return run


def start_first(
    folder: Path, described: dict[str, Any], *, mode: Mode, after_step: int, all_processes: bool = False
) -> wandb.Run:
    """As `start_run`, on the first process."""
    run = None
    given = {"id": id_of(folder, "wandb") or secrets.token_hex(4), "dir": folder, "name": described["name"]}
    given |= {"group": described["group"], **paths_of(described)}
    if os.environ.get(SWEEP):
        given.pop("id")  # the sweep has given it one
    if os.environ.get("WANDB_MODE") == "disabled" and mode == "auto":
        return wandb.init(mode="disabled")
    if is_online(mode):
        try:
            settings = settings_of_process() if all_processes else wandb.Settings()
            settings.init_timeout, settings.finish_timeout = START_S, UPLOAD_S
            run = wandb.init(
                **given,
                mode="shared" if all_processes else "online",
                settings=settings,
                resume=None if all_processes else "allow",
            )
        except wandb.errors.Error as error:
            log.warning("W&B does not start online (%s): the run is recorded offline", first_line(error))
    before = None
    if run is None:
        before = recorded_offline(folder) if after_step else None
        run = wandb.init(**given, mode="offline")
        log.info("W&B: offline; `wandb leet %s` shows the run, `wandb sync` uploads it", folder / "wandb")
    keep_id(folder, "wandb", run.id)
    run.define_metric(AXIS)
    run.define_metric("*", step_metric=AXIS, step_sync=True)
    if after_step:
        catch_up(run, folder, after_step, before)
    return run


def catch_up(run: wandb.Run, folder: Path, after_step: int, before: tuple[int, int] | None) -> None:
    """Records what a run that goes on has behind it and W&B lacks: a process that was killed leaves its last seconds behind.

    Args:
        run: that goes on.
        folder: of the run.
        after_step: the optimizer steps that it has behind it.
        before: as `recorded_offline` gives it; None of a run online, whose server knows. An offline run counts its rows from 0
            at each start, and the server takes no row twice: it goes on counting here.
    """
    first, recorded = (None, int(run.summary.get(AXIS) or 0)) if before is None else (before[0] + 1, before[1])
    for row in rows_between(folder / NAME, recorded, after_step) or [{"step": str(recorded)}]:
        numbers = {key: float(value) for key, value in row.items() if key != "step"}
        run.log({**numbers, AXIS: int(row["step"])}, step=first, commit=True)
        first = None


def recorded_offline(folder: Path) -> tuple[int, int]:
    """The last row and the last optimizer step that W&B has recorded offline in a run folder, by its own count; 0 of none."""
    rows, steps = [0], [0]
    for path in folder.glob("wandb/offline-run-*/run-*.wandb"):
        try:
            command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(path)]
            read = subprocess.run(command, capture_output=True, text=True, timeout=READ_S, check=True)
            summary = json.loads(read.stdout)["summary"]
            rows.append(int(summary.get("_step", 0)))
            steps.append(int(summary.get(AXIS, 0)))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("W&B: %s cannot be read (%s); its rows are recorded again", path, first_line(error))
    return max(rows), max(steps)


def is_online(mode: Mode) -> bool:
    """Whether this machine has an account that the server knows; asks for none, and tells once why the answer is no.

    Raises:
        InputError: when mode is "online" and there is no account.
    """
    if mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    try:
        if wandb.login(prompt=False, verify=True):
            return True
    except (wandb.errors.Error, OSError) as error:
        log.warning("W&B cannot log in (%s): the run is recorded offline", first_line(error))
        return False
    if mode == "online":
        raise InputError(
            "logger.wandb.mode=online: this machine is not logged in to W&B; run `wandb login`, set WANDB_API_KEY, or take "
            "logger.wandb.mode=auto"
        )
    return False


def paths_of(described: dict[str, Any]) -> dict[str, Any]:
    """Project and entity, which a sweep knows itself."""
    return {} if os.environ.get(SWEEP) else {key: described[key] for key in ("project", "entity")}


def settings_of_process() -> wandb.Settings:
    """How W&B tells the processes of one run apart, and that only the first says how it ended."""
    rank, is_first = os.environ.get("RANK", "0"), is_main_process()
    settings = wandb.Settings(x_label=f"process {rank}", x_primary=is_first, x_update_finish_state=is_first)
    settings.init_timeout, settings.finish_timeout = START_S, UPLOAD_S
    return settings
