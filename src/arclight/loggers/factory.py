"""Where a run's metrics go: a CSV file in its folder, TensorBoard, W&B, MLflow. Their packages load when chosen."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger

from arclight.config.instantiate import build, check, parameters_of
from arclight.config.redaction import hidden_arguments, hide, without_secrets
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError, first_line
from arclight.loggers.artifacts import Artifact, upload_artifacts
from arclight.loggers.csv import NAME, MetricsFile, rows_until
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.run_ids import facts_of, group_of, name_of

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger

log = logging.getLogger(__name__)


def csv(folder: Path, *, after_step: int = 0) -> CSVLogger:
    """Every metric as a row of metrics.csv in the run folder.

    Args:
        folder: of the run.
        after_step: of a run that goes on, the optimizer steps that it has behind it; rows of later ones are taken back.
    """
    logger = CSVLogger(folder, name="", version="")
    if is_main_process():
        logger._experiment = MetricsFile(folder, rows_until(folder / NAME, after_step) if after_step else [])
    return logger


def tensorboard(folder: Path, *, artifacts: Sequence[Literal["mistakes"]] = (), after_step: int = 0) -> TensorBoardLogger:
    """Event files below `tensorboard/` in the run folder; `tensorboard --logdir outputs` shows all runs.

    Args:
        folder: of the run.
        artifacts: what is handed over at the end; "mistakes", as images.
        after_step: of a run that goes on, the optimizer steps that it has behind it.
    """
    from arclight.loggers.tensorboard import ResumableTensorBoardLogger

    return ResumableTensorBoardLogger(folder, artifacts=artifacts, after_step=after_step)


def wandb(
    folder: Path,
    *,
    name: str,
    project: str = "arclight",
    entity: str | None = None,
    group: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    all_processes: bool = False,
    artifacts: Sequence[Artifact] = (),
    after_step: int = 0,
) -> Logger:
    """A Weights & Biases run; without an account it is written below `wandb/` in the run folder and nothing is asked.

    A run that goes on does so under its id. What was recorded offline lies in a folder of its own for each start;
    `wandb sync --append` puts them together.

    Args:
        folder: of the run.
        name: shown in the list of runs, followed by the settings that the run was started with.
        project: that the run goes to.
        entity: user or team; None is the account's own.
        group: under which runs stand together; None is the sweep or grid that they belong to, else data and model.
        mode: "auto" is online when this machine is logged in (`wandb login` or WANDB_API_KEY) and the server answers, else
            offline; "online" tells when it is not logged in.
        all_processes: whether every process of the run records its system metrics, not only the first; online only.
        artifacts: what is handed over at the end: "report", "checkpoint" (the best), "confusion" (matrix and table), "classes"
            (scores of each), "mistakes" (images or sentences), "predictions" (a table).
        after_step: of a run that goes on, the optimizer steps that it has behind it.

    Raises:
        InputError: when an account is wanted and there is none.
    """
    from arclight.loggers.wandb import ResumableWandbLogger, start_run

    own = {"name": name_of(folder, name), "group": hide(group or group_of(folder, name))}
    described = {**own, "project": project, "entity": entity}
    with hidden_arguments():
        run = start_run(folder, described, mode=mode, after_step=after_step, all_processes=all_processes)
    return ResumableWandbLogger(name=name, save_dir=folder, project=project, experiment=run, artifacts=artifacts)


def mlflow(
    folder: Path,
    *,
    name: str,
    experiment: str = "arclight",
    uri: str | None = None,
    group: str | None = None,
    artifacts: Sequence[Artifact] = (),
    after_step: int = 0,
) -> Logger:
    """An MLflow run; `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db` shows all of them.

    Args:
        folder: of the run.
        name: as of `wandb`.
        experiment: that the run belongs to.
        uri: of the store; None is MLFLOW_TRACKING_URI, else the SQLite file outputs/mlflow.db with the artifacts beside it.
        group: as of `wandb`; a tag there.
        artifacts: as of `wandb`.
        after_step: of a run that goes on, the optimizer steps that it has behind it.

    Raises:
        InputError: when MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("logger=mlflow: MLflow is not installed; pip install 'arclight[mlflow]', or take another tracker")
    from arclight.loggers.mlflow import ResumableMLFlowLogger, start_run

    if not is_main_process():
        return DummyLogger()
    run_id, store = start_run(
        folder,
        name=name_of(folder, name),
        group=group or group_of(folder, name),
        experiment=experiment,
        uri=uri,
        after_step=after_step,
    )
    return ResumableMLFlowLogger(experiment_name=experiment, tracking_uri=store, run_id=run_id, artifacts=artifacts)


def build_loggers(chosen: Mapping[str, Any], folder: Path, name: str, *, after_step: int = 0) -> list[Logger]:
    """The loggers of the config, each behind a guard; the CSV file is written along with any other.

    A tracker that cannot be started is told and left out; a mistake in its settings is not.

    Args:
        chosen: settings by name.
        folder: of the run.
        name: of the run.
        after_step: of a run that goes on, the optimizer steps that it has behind it.

    Raises:
        InputError: when a tracker's target or arguments are wrong, or its package is missing.
    """
    if not chosen:
        return []
    # a run that was killed goes on after the rows of its checkpoint: they must be there when it is saved
    loggers = start(lambda: csv(folder, after_step=after_step), "csv", folder, in_background=False)
    for key, settings in chosen.items():
        path = f"logger.{key}"
        if not isinstance(settings, Mapping):
            raise InputError(f"{path}={settings!r} must hold a _target_ and its arguments; logger=none tracks nothing")
        if key == "csv":
            continue
        offered = {"folder": folder, "name": name, "after_step": after_step}
        takes = parameters_of(str(settings.get("_target_", "")), path) if "_target_" in settings else {}
        given = {parameter: value for parameter, value in offered.items() if parameter in takes}
        check(settings, path, given)
        loggers += start(functools.partial(build, settings, path, given), key, folder, in_background=True)
    return loggers


def start(make: Callable[[], Logger], key: str, folder: Path, *, in_background: bool) -> list[Logger]:
    """The logger behind its guard; none, and a warning, when it cannot be made. Raises InputError as `make` does."""
    try:
        return [FaultTolerantLogger(make(), key, folder, in_background=in_background)]
    except InputError:
        raise
    except Exception as error:
        log.warning("%s cannot be started (%s): it records nothing; the run goes on", key, first_line(error))
        return []


def record_facts(loggers: list[Logger], facts: Mapping[str, Any]) -> None:
    """Sends what is known before the first step to every tracker that shows such things, once.

    That is the config, the number of parameters, the overrides, the state of git, hardware and versions.
    """
    for logger in loggers:
        assert isinstance(logger, FaultTolerantLogger)
        if not isinstance(logger.logger, CSVLogger):  # config.yaml and environment.json lie beside its file already
            logger.log_hyperparams({**without_secrets(dict(facts)), **facts_of(logger.folder)})


def close_loggers(loggers: list[Logger], *, status: str) -> None:
    """Hands over what belongs to the end and ends the trackers' runs with the status of the run.

    Args:
        loggers: as `build_trackers` gave them.
        status: "finished", "interrupted" or "failed".
    """
    for logger in loggers:
        assert isinstance(logger, FaultTolerantLogger)
        own: Any = logger.logger
        logger.send(functools.partial(upload_artifacts, own, logger.folder))
        logger.finalize("success" if status == "finished" else "failed")
        if hasattr(type(own), "end"):  # of its class: Lightning's DummyLogger has every attribute
            (logger.send if is_main_process() else logger.attempt)(functools.partial(own.end, status))
    for logger in loggers:  # each has begun to end
        assert isinstance(logger, FaultTolerantLogger)
        own = logger.logger
        logger.close()
        if logger.is_broken and hasattr(type(own), "abandon"):
            own.teardown()
