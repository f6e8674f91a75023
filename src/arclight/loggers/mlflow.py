"""A run of MLflow, under one id however often it goes on."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from arclight.errors import first_line
from arclight.loggers.artifacts import Artifact
from arclight.loggers.run_ids import id_of, keep_id

STORE = Path("outputs/mlflow.db")
TIMEOUT, RETRIES = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"  # seconds; by which the client goes
AT_START = {TIMEOUT: "5", RETRIES: "0"}  # the training waits
AFTERWARDS = {TIMEOUT: "10", RETRIES: "3"}  # nobody waits, but a run that has ended should not for long
ENDS = {"finished": "FINISHED", "interrupted": "KILLED"}

log = logging.getLogger(__name__)


class ResumableMLFlowLogger(MLFlowLogger):
    """Lightning's logger around a run that was started here; `artifacts` are handed over at the end."""

    def __init__(
        self, *, experiment_name: str, tracking_uri: str, artifacts: Sequence[Artifact], run_id: str | None = None
    ) -> None:
        super().__init__(experiment_name=experiment_name, tracking_uri=tracking_uri, run_id=run_id)
        self.artifacts = tuple(artifacts)
        with patience(AT_START):
            _ = self.experiment  # asks the server, now and not when Lightning wants it
        patience_kept(AFTERWARDS)

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Once: MLflow refuses other values for what it knows, so a run that goes on keeps what it began with."""
        if not self.experiment.get_run(self.run_id).data.params:
            super().log_hyperparams(params)

    def end(self, status: str) -> None:
        """Says how the run ended."""
        self.experiment.set_terminated(self.run_id, ENDS.get(status, "FAILED"))


def start_run(folder: Path, *, name: str, group: str, experiment: str, uri: str | None, after_step: int) -> tuple[str, str]:
    """Id and store of the MLflow run of this folder: a new one, or that which the folder's run was recorded in before."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # it shows a traceback of what the guard tells in a line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    store = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{STORE.absolute()}"
    if store == f"sqlite:///{STORE.absolute()}":
        STORE.parent.mkdir(parents=True, exist_ok=True)
    with patience(AT_START):
        client = MlflowClient(store)
        found = client.get_experiment_by_name(experiment)
        run_id = id_of(folder, "mlflow") if after_step else None
        if run_id is not None:
            try:
                client.update_run(run_id, status="RUNNING")
                return run_id, store
            except MlflowException as error:
                log.warning("MLflow: run %s cannot go on (%s); a new one takes its place", run_id, first_line(error))
        place = None if "://" in store and not store.startswith("sqlite") else place_of_artifacts()
        experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
        tags = {"mlflow.runName": name, "group": group, "folder": str(folder)}
        run_id = str(client.create_run(experiment_id, tags=tags).info.run_id)
    keep_id(folder, "mlflow", run_id)
    return run_id, store


def place_of_artifacts() -> str:
    """The folder beside the SQLite file, as a URI."""
    return (STORE.parent / "mlflow-artifacts").absolute().as_uri()


@contextmanager
def patience(limits: dict[str, str]) -> Iterator[None]:
    """Inside, the client waits for a server by these limits, unless the user has set others."""
    given = {key: value for key, value in limits.items() if key not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for key in given:
            os.environ.pop(key, None)


def patience_kept(limits: dict[str, str]) -> None:
    """From here on the client waits by these limits, unless the user has set others."""
    for key, value in limits.items():
        os.environ.setdefault(key, value)
