"""What of a run's files goes to its trackers when it has ended: the last numbers, and the artifacts that the config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from arclight.training.tracked_runs import read_object

Artifact = Literal["report", "checkpoint", "confusion"]
FILES: dict[Artifact, str] = {"report": "report.html", "checkpoint": "checkpoints/best.ckpt", "confusion": "scores.json"}


def hand_over_to_wandb(logger: Any, folder: Path) -> None:
    """Fills the summary of a W&B run, then hands over what was asked for of `logger.artifacts`."""
    import wandb

    run = logger.experiment
    run.summary.update(read_object(folder / "results.json"))
    for wanted in logger.artifacts:
        path = folder / FILES[wanted]
        if not path.exists():
            continue
        if wanted == "confusion":
            rows = confusion_rows(path)
            run.log({"test/confusion": wandb.Table(columns=["true", "predicted", "count"], data=rows)})
            continue
        artifact = wandb.Artifact(f"{wanted}-{run.id}", type="model" if wanted == "checkpoint" else wanted)
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        run.log_artifact(artifact)


def hand_over_to_mlflow(logger: Any, folder: Path) -> None:
    """Adds to an MLflow run the numbers that it lacks, then what was asked for of `logger.artifacts`."""
    client, run_id = logger.experiment, logger.run_id
    known = client.get_run(run_id).data.metrics
    for key, value in read_object(folder / "results.json").items():
        if isinstance(value, int | float) and key not in known:
            client.log_metric(run_id, key, value)
    for wanted in logger.artifacts:
        path = folder / FILES[wanted]
        if path.exists():
            (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path))


def confusion_rows(path: Path) -> list[list[Any]]:
    """True label, predicted label and count of each cell that is not empty, from a scores.json."""
    confusion = read_object(path).get("confusion") or {}
    labels, counts = confusion.get("labels", []), confusion.get("counts", [])
    return [[labels[y], labels[x], count] for y, row in enumerate(counts) for x, count in enumerate(row) if count]


def hand_over(logger: Logger, folder: Path) -> None:
    """To a tracker that takes such things."""
    kind = type(logger).__name__
    if kind == "TrackedByWandb":
        hand_over_to_wandb(logger, folder)
    elif kind == "TrackedByMlflow":
        hand_over_to_mlflow(logger, folder)
