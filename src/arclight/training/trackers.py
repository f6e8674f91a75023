"""Where a run's metrics go: a CSV file in its folder, TensorBoard, Weights & Biases. Their packages load when chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from csv import DictReader as reader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from arclight.build import build
from arclight.errors import InputError
from arclight.hardware import is_main_process

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

log = logging.getLogger(__name__)


def csv(folder: Path, *, after_step: int = 0) -> CSVLogger:
    """Every metric as a row of metrics.csv in the run folder.

    Args:
        folder: of the run.
        after_step: of a run that goes on, the optimizer steps that it has behind it; rows of later ones are taken back.
    """
    rows = rows_until(folder / "metrics.csv", after_step) if after_step else []
    logger = CSVLogger(folder, name="", version="")
    if rows and is_main_process():
        logger.experiment.metrics = rows  # Lightning begins the file anew
        logger.save()
    return logger


def rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows of a metrics.csv that a run of so many steps has written, without their empty cells; none where none is."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if value} for row in reader(file)]
    # Lightning counts a validation to the step before the one that it follows
    return [row for row in rows if int(row["step"]) + any(key.startswith("val/") for key in row) <= step]


def tensorboard(folder: Path) -> TensorBoardLogger:
    """Event files below `tensorboard/` in the run folder; `tensorboard --logdir outputs` shows all runs."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def wandb(
    folder: Path,
    *,
    name: str,
    project: str = "arclight",
    entity: str | None = None,
    group: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
) -> WandbLogger:
    """A Weights & Biases run; without an account it is written below `wandb/` in the run folder and nothing is asked.

    Args:
        folder: of the run.
        name: shown in the list of runs.
        project: that the run goes to.
        entity: user or team; None is the account's own.
        group: under which the runs of a grid stand together.
        mode: "auto" is online when this machine is logged in (`wandb login` or WANDB_API_KEY), else offline.
    """
    import wandb as client
    from lightning.pytorch.loggers import WandbLogger

    offline = mode == "offline" or (mode == "auto" and not client.login(prompt=False, verify=False))
    if offline:
        log.info("W&B: offline; `wandb leet %s` shows the run, `wandb sync` uploads it", folder / "wandb")
    run = None
    if is_main_process():  # the others neither log nor ask
        run = client.init(
            name=name,
            project=project,
            entity=entity,
            group=group,
            dir=folder,
            mode="offline" if offline else "online",
        )
    return WandbLogger(name=name, save_dir=folder, project=project, experiment=run)


def build_trackers(chosen: Mapping[str, Any], folder: Path, name: str, *, after_step: int = 0) -> list[Logger]:
    """The loggers of the config; the CSV file is written along with any other.

    Args:
        chosen: settings by name.
        folder: of the run.
        name: of the run.
        after_step: of a run that goes on, the optimizer steps that it has behind it.

    Raises:
        InputError: when a tracker's target or arguments are wrong.
    """
    if not chosen:
        return []
    loggers: list[Logger] = [csv(folder, after_step=after_step)]
    for key, settings in chosen.items():
        path = f"tracker.{key}"
        if not isinstance(settings, Mapping):
            raise InputError(f"{path}={settings!r} must hold a _target_ and its arguments; tracker=none tracks nothing")
        if key != "csv":
            given = {"folder": folder, "name": name} if key == "wandb" else {"folder": folder}
            loggers.append(build(settings, path, given))
    return loggers


def record_facts(loggers: list[Logger], facts: Mapping[str, Any]) -> None:
    """Sends what is known before the first step (config, parameters, hardware) to every tracker that shows such things."""
    for logger in loggers:
        if not isinstance(logger, CSVLogger):  # config.yaml and environment.json lie beside its file already
            logger.log_hyperparams(dict(facts))


@rank_zero_only
def close_trackers(loggers: list[Logger], *, failed: bool) -> None:
    """Ends the trackers' runs, those of a failed run marked as failed."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if type(logger).__name__ == "WandbLogger":
            import wandb as client

            client.finish(exit_code=1 if failed else 0)
