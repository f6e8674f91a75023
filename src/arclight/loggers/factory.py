"""Builds the loggers of a run: a CSV file, TensorBoard, W&B, MLflow. Their packages are imported when chosen."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger

from arclight.checkpoint.contents import accepted
from arclight.config.instantiate import build, check
from arclight.config.redaction import hidden_arguments, hide, without_secrets
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, first_line
from arclight.loggers.artifacts import Artifact
from arclight.loggers.csv import ResumableCSVLogger
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.record import Record
from arclight.loggers.run_ids import run_group, run_metadata, run_name

OFFERED = ("run_dir", "save_dir", "name", "record")  # arguments that any logger gets whose constructor takes them

log = logging.getLogger(__name__)


def csv(run_dir: Path, *, record: Record | None = None) -> Logger:
    """Returns a logger that writes metrics.csv; a resumed run keeps the rows of the record."""
    return ResumableCSVLogger(run_dir, record=record or Record())


def tensorboard(run_dir: Path, *, artifacts: Sequence[Literal["mistakes"]] = (), record: Record | None = None) -> Logger:
    """Returns a TensorBoard logger; `tensorboard --logdir outputs` shows all runs.

    Args:
        run_dir: of the run; event files are written to `tensorboard/` in it.
        artifacts: written at the end; "mistakes" as images.
        record: rows of metrics.csv that a resumed run keeps.
    """
    from arclight.loggers.tensorboard import ResumableTensorBoardLogger

    return ResumableTensorBoardLogger(run_dir, artifacts=artifacts, record=record or Record())


def wandb(
    run_dir: Path,
    *,
    name: str,
    project: str = "arclight",
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    mode: Literal["auto", "online", "offline"] = "auto",
    all_processes: bool = False,
    artifacts: Sequence[Artifact] = (),
    record: Record | None = None,
) -> Logger:
    """Returns a Weights & Biases logger; without an account it records to `wandb/` in the run directory and never prompts.

    A resumed run keeps its id. Offline, every start records to a directory of its own; `wandb sync --append` joins them.

    Args:
        run_dir: of the run.
        name: in the list of runs, followed by the settings that the run was started with.
        project: of W&B.
        entity: user or team; None is the account's default.
        group: of the run; None is its sweep or multirun, else data and model.
        tags: of the run, those of the config's `tags`.
        mode: "auto" is online when this machine is logged in (`wandb login` or WANDB_API_KEY) and the server answers, else
            offline; "online" requires a login.
        all_processes: whether every process records its system metrics, not only the main one; online only.
        artifacts: uploaded at the end: "report", "checkpoint" (the best), "confusion" (matrix and table), "classes" (scores of
            each), "mistakes" (images or sentences), "predictions" (a table).
        record: rows of metrics.csv that a resumed run keeps.

    Raises:
        InputError: when an account is required and there is none.
    """
    from arclight.loggers.wandb import ResumableWandbLogger, start_run

    described: dict[str, Any] = {"name": run_name(run_dir, name), "group": hide(group or run_group(run_dir, name))}
    described |= {"project": project, "entity": entity, "tags": [hide(str(tag)) for tag in tags]}
    with hidden_arguments():
        record = record or Record()
        run, repeats = start_run(run_dir, described, mode=mode, record=record, all_processes=all_processes)
    named: dict[str, Any] = {"name": name, "project": project, "artifacts": artifacts}
    return ResumableWandbLogger(save_dir=run_dir, experiment=run, record=record, repeats=repeats, **named)


def mlflow(
    run_dir: Path,
    *,
    name: str,
    experiment: str = "arclight",
    uri: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    artifacts: Sequence[Artifact] = (),
    record: Record | None = None,
) -> Logger:
    """Returns an MLflow logger; `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db` shows all runs.

    Args:
        run_dir: of the run.
        name: as of `wandb`.
        experiment: of MLflow.
        uri: of the store; None is MLFLOW_TRACKING_URI, else the SQLite file outputs/mlflow.db with the artifacts beside it.
        group: as of `wandb`; a tag.
        tags: as of `wandb`; each a tag with the value "true".
        artifacts: as of `wandb`.
        record: as of `wandb`.
    """
    from arclight.loggers.mlflow import ResumableMLFlowLogger, start_run

    if not is_main_process():
        return DummyLogger()
    names = {"name": run_name(run_dir, name), "group": group or run_group(run_dir, name)}
    labels = [hide(str(tag)) for tag in tags]
    run_id, store = start_run(run_dir, **names, tags=labels, experiment=experiment, uri=uri)
    named: dict[str, Any] = {"artifacts": artifacts, "record": record or Record()}
    return ResumableMLFlowLogger(experiment_name=experiment, tracking_uri=store, run_id=run_id, **named)


def build_loggers(
    chosen: Mapping[str, Any], run_dir: Path, name: str, *, tags: Sequence[str] = (), record: Record | None = None
) -> list[Logger]:
    """Returns the loggers of the config, each fault-tolerant; metrics.csv is written along with any other.

    A logger that cannot be started is logged and left out. `record` holds the rows of metrics.csv that a resumed run keeps.

    Raises:
        InputError: when a logger's target or arguments are wrong, or its package is missing.
    """
    if not chosen:
        return []
    record = record or Record()
    available = dict(zip(OFFERED, (run_dir, str(run_dir), name, record), strict=True))
    makers: dict[str, Callable[[], Logger]] = {"csv": functools.partial(csv, run_dir, record=record)}
    for key, settings in chosen.items():
        path = f"logger.{key}"
        if not isinstance(settings, Mapping):
            raise InputError(f"{path}={settings!r} must hold a _target_ and its arguments; logger=none logs nothing")
        if key != "csv":
            # `tags` of a logger of another origin may be anything
            is_own = str(settings.get("_target_")).startswith("arclight.")
            given = accepted(settings, path, {**available, "tags": list(tags)} if tags and is_own else available)
            check(settings, path, given)
            makers[key] = functools.partial(build, settings, path, given)
    loggers: list[Logger] = []
    for key, make in makers.items():
        try:
            loggers.append(FaultTolerantLogger(make(), key, run_dir))
        except InputError:
            raise
        except ModuleNotFoundError as error:
            message = (
                f"logger.{key} needs a package that is not installed: {first_line(error)}. Install it, or use another logger"
            )
            raise InputError(message, key=f"logger.{key}") from error
        except Exception as error:
            log.warning("%s cannot be started (%s): it records nothing; the run continues", key, first_line(error))
    return loggers


def log_metadata(loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
    """Sends config, number of parameters, overrides, git commit, machine and versions to every logger but the CSV file."""
    for logger in loggers:
        assert isinstance(logger, FaultTolerantLogger)
        if not isinstance(logger.logger, CSVLogger):  # config.yaml and environment.json are in the same directory
            logger.log_hyperparams({**without_secrets(dict(settings)), **run_metadata(logger.run_dir)})


def close_loggers(loggers: Sequence[Logger], *, status: str) -> None:
    """Uploads artifacts and ends the loggers' runs with the status of the run: "finished", "interrupted" or "failed"."""
    own = [logger for logger in loggers if isinstance(logger, FaultTolerantLogger)]
    for logger in own:
        logger.end(status)
    for logger in own:  # slow ones end at the same time
        logger.close()
