"""A run of Weights & Biases: online where that works, else offline; under one id however often it goes on."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import WandbLogger

from arclight.training.artifacts import Artifact
from arclight.training.tracked_runs import id_of, keep_id

log = logging.getLogger(__name__)

AXIS = "trainer/global_step"  # under which Lightning's logger sends the optimizer step

# W&B keeps what is logged offline in memory for 15 s; of a run that is killed, that would be lost though its checkpoint has it
FLUSHES, FLUSH_S = "x_transaction_log_flush_interval", 0.05

# An offline run that goes on counts its rows from 0 again, and the server takes no row twice: it begins above all there can be
MOST_ROWS_PER_STEP, MOST_ROWS_AT_END = 2, 8


class TrackedByWandb(WandbLogger):
    """Lightning's logger around a run that was started here; `artifacts` are handed over at the end."""

    def __init__(self, *, name: str, save_dir: Path, project: str, experiment: Any, artifacts: Sequence[Artifact]) -> None:
        super().__init__(name=name, save_dir=save_dir, project=project, experiment=experiment)
        self.artifacts = tuple(artifacts)

    def end(self, *, failed: bool) -> None:
        """Ends the run; a failed one with exit code 1."""
        self.experiment.finish(exit_code=1 if failed else 0)


def start_run(folder: Path, described: dict[str, Any], *, mode: Literal["auto", "online", "offline"], after_step: int) -> Any:
    """The W&B run of this folder: a new one, or that under whose id the folder's run was recorded before."""
    offline = mode == "offline" or (mode == "auto" and not wandb.login(prompt=False, verify=False))
    run_id = id_of(folder, "wandb") or secrets.token_hex(4)
    own = {FLUSHES: FLUSH_S} if FLUSHES in wandb.Settings.model_fields else {}
    settings = {**described, "id": run_id, "dir": folder, "settings": own}
    if offline:
        run = wandb.init(**settings, mode="offline")
    else:
        try:
            run = wandb.init(**settings, mode="online", resume="allow")
        except wandb.errors.Error as error:
            if mode == "online":
                raise
            log.warning("W&B: no run online (%s)", str(error).partition("\n")[0])
            offline = True
            run = wandb.init(**settings, mode="offline")
    keep_id(folder, "wandb", run_id)
    run.define_metric(AXIS)
    run.define_metric("*", step_metric=AXIS, step_sync=True)
    if offline:
        log.info("W&B: offline; `wandb leet %s` shows the run, `wandb sync` uploads it", folder / "wandb")
        if after_step:
            run.log({AXIS: after_step}, step=MOST_ROWS_PER_STEP * after_step + MOST_ROWS_AT_END)
    return run
