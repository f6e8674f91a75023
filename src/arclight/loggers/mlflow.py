"""A run of MLflow that resumes under its id; its metric history has every row of metrics.csv once."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from arclight.config.atomic_file import read_json
from arclight.console.terminal import relative_path
from arclight.errors import first_line
from arclight.loggers.artifacts import FILES, Artifact, error_images
from arclight.loggers.record import Record, Repeats, metrics_of, step_of
from arclight.loggers.run_ids import read_id, write_id

STORE = Path("outputs/mlflow.db")
TIMEOUT, RETRIES = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"  # seconds; variables of the client
AT_START = {TIMEOUT: "5", RETRIES: "0"}  # training waits for the server
DURING_RUN = {TIMEOUT: "10", RETRIES: "3"}  # only the thread waits, and a finished run should not for long
NOT_IN_A_NAME = re.compile(r"[^\w./ -]")  # characters that MLflow refuses in the names of metrics, parameters and tags
MAX_NAME_LENGTH, BATCH_SIZE = 240, 1000  # of 250 characters that a name may have, and of metrics in one call
STATUSES = {"finished": "FINISHED", "interrupted": "KILLED"}

log = logging.getLogger(__name__)


class ResumableMLFlowLogger(MLFlowLogger):
    """Lightning's logger for a run that `start_run` created; it uploads `artifacts` at the end."""

    is_slow = True

    def __init__(
        self, *, experiment_name: str, tracking_uri: str, artifacts: Sequence[Artifact], run_id: str, record: Record
    ) -> None:
        super().__init__(experiment_name=experiment_name, tracking_uri=tracking_uri, run_id=run_id)
        self.artifacts = tuple(artifacts)
        self._names: dict[str, str] = {}  # of metrics, as they are logged, and as MLflow accepts them
        with client_limits(AT_START):
            # connects now, not at the first record
            self._repeats = Repeats(recorded_metrics(self.experiment, run_id))
            self._log((metrics_of(row), step_of(row)) for row in record.rows)
        for key, value in DURING_RUN.items():
            os.environ.setdefault(key, value)

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Logs them once: MLflow refuses to change a value, so a resumed run keeps its first ones."""
        if not self.experiment.get_run(self.run_id).data.params:
            super().log_hyperparams(with_accepted_names(params if isinstance(params, Mapping) else vars(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics under names that MLflow accepts; Lightning's method drops characters, non-ASCII letters among them."""
        self._log([(metrics, step or 0)])

    def _log(self, rows: Iterable[tuple[Mapping[str, float], int]]) -> None:
        """Logs those metrics of the rows that MLflow does not have."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = []
        for row, step in rows:
            named = {self.name_of(key): value for key, value in sorted(row.items()) if not isinstance(value, str)}
            metrics += [Metric(key, float(value), now_ms, step) for key, value in self._repeats.new(named, step).items()]
        for start in range(0, len(metrics), BATCH_SIZE):
            self.experiment.log_batch(self.run_id, metrics=metrics[start : start + BATCH_SIZE])

    def name_of(self, key: str) -> str:
        """Returns the name of a metric in MLflow; two metrics never have the same."""
        if key not in self._names:
            name, number = accepted_name(key), 1
            while name in self._names.values():
                number += 1
                name = f"{accepted_name(key)}_{number}"
            self._names[key] = name
        return self._names[key]

    def location(self) -> str:
        store = str(self._tracking_uri)
        if store.startswith(("http://", "https://")):
            return f"{store.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        if store.startswith("sqlite:///"):
            store = f"sqlite:///{relative_path(Path(store.removeprefix('sqlite:///')))}"
        command = f"mlflow ui --backend-store-uri {store}"
        return command if has_web_page() else f"pip install mlflow && {command}"

    def upload_artifacts(self, run_dir: Path) -> None:
        """Logs the results that are not metrics yet, then uploads the files."""
        client, run_id = self.experiment, self.run_id
        results = read_json(run_dir / "results.json")
        logged = client.get_run(run_id).data.metrics
        numbers = {key: value for key, value in results.items() if isinstance(value, int | float)}
        self.log_metrics({key: value for key, value in numbers.items() if self.name_of(key) not in logged})
        client.set_tag(run_id, "status", str(results.get("status", "")))
        for name in dict.fromkeys(FILES[artifact] for artifact in self.artifacts):
            path = run_dir / name
            if path.exists():
                (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path))
        if "mistakes" in self.artifacts:
            for number, (image, caption) in enumerate(error_images(run_dir)):
                client.log_image(run_id, image, f"mistakes/{number:02}_{'_'.join(filter(str.isalnum, caption.split()))}.png")

    def end(self, status: str) -> None:
        self.experiment.set_terminated(self.run_id, STATUSES.get(status, "FAILED"))


def start_run(
    run_dir: Path, *, name: str, group: str, tags: Sequence[str], experiment: str, uri: str | None
) -> tuple[str, str]:
    """Returns id and store of the run's MLflow run: a new one, or for a resumed run the one it was recorded in before."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is logged in one line
    store = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{STORE.absolute()}"
    if store == f"sqlite:///{STORE.absolute()}":
        STORE.parent.mkdir(parents=True, exist_ok=True)
    with client_limits(AT_START):
        client = MlflowClient(store)
        found = client.get_experiment_by_name(experiment)
        run_id = read_id(run_dir, "mlflow")
        if run_id is not None:
            try:
                client.update_run(run_id, status="RUNNING")
                return run_id, store
            except MlflowException as error:
                log.warning("MLflow: cannot resume run %s (%s); creating a new one", run_id, first_line(error))
        is_local = "://" not in store or store.startswith("sqlite")
        beside_store = (STORE.parent / "mlflow-artifacts").absolute().as_uri() if is_local else None
        experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location=beside_store)
        labels = {accepted_name(tag): "true" for tag in tags}
        labels |= {"mlflow.runName": name, "group": group, "folder": str(run_dir)}
        run_id = str(client.create_run(experiment_id, tags=labels).info.run_id)
    write_id(run_dir, "mlflow", run_id)
    return run_id, store


def recorded_metrics(client: Any, run_id: str) -> Iterator[tuple[str, int]]:
    """Yields name and step of each metric that a run has recorded."""
    for name in client.get_run(run_id).data.metrics:
        yield from ((name, metric.step) for metric in client.get_metric_history(run_id, name))


def accepted_name(name: str) -> str:
    """Returns a name without what MLflow refuses: most punctuation, and parts of a path that are empty or mean a directory."""
    parts = NOT_IN_A_NAME.sub("_", name)[:MAX_NAME_LENGTH].split("/")
    return "/".join("_" * max(len(part), 1) if part in ("", ".", "..") else part for part in parts)


def with_accepted_names(params: Any) -> Any:
    """Returns nested parameters with accepted names."""
    if not isinstance(params, Mapping):
        return params
    return {accepted_name(str(key)): with_accepted_names(value) for key, value in params.items()}


def has_web_page() -> bool:
    """Returns whether `mlflow ui` works here: mlflow-skinny, which a run needs, has no web page."""
    try:
        return bool(importlib.metadata.version("mlflow"))
    except importlib.metadata.PackageNotFoundError:
        return False


@contextmanager
def client_limits(limits: Mapping[str, str]) -> Iterator[None]:
    """Context manager that sets timeout and retries of MLflow's client, where the user has not set them."""
    added = {key: value for key, value in limits.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
