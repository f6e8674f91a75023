"""What of a run's files goes to its trackers when it has ended: the last numbers, and the artifacts that the config names."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from arclight.loggers.run_ids import read_object
from arclight.metrics.records import ClassPrediction, read_predictions

Artifact = Literal["report", "checkpoint", "confusion", "classes", "mistakes", "predictions"]
FILES: dict[Artifact, str] = {
    "report": "report.html",
    "checkpoint": "checkpoints/best.ckpt",
    "confusion": "scores.json",
    "classes": "scores.json",
    "mistakes": "mistakes.json",
    "predictions": "predictions.jsonl",
}
MOST_ROWS = 10_000  # of a table; W&B shows no more

Rows = tuple[list[str], list[list[Any]]]  # names of the columns, and a list for each row


def upload_to_wandb(logger: Any, folder: Path) -> None:
    """Fills the summary of a W&B run, then hands over what was asked for of `logger.artifacts`."""
    import wandb

    run = logger.experiment
    run.summary.update(read_object(folder / "results.json"))
    for wanted in logger.artifacts:
        path = folder / FILES[wanted]
        if not path.exists():
            continue
        if wanted in ("report", "checkpoint"):
            artifact = wandb.Artifact(f"{wanted}-{run.id}", type="model" if wanted == "checkpoint" else wanted)
            (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
            run.log_artifact(artifact)
            continue
        columns, rows = TABLES[wanted](path)
        if wanted == "mistakes" and "image" in columns:
            place = columns.index("image")
            rows = [[wandb.Image(value) if at == place else value for at, value in enumerate(row)] for row in rows]
        table = wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)
        shown: Any = table
        if wanted == "confusion":  # W&B's own chart of a matrix
            fields = dict(zip(("Actual", "Predicted", "nPredictions"), columns, strict=True))
            shown = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": "test"})
        run.log({f"test/{wanted}": shown})


def upload_to_mlflow(logger: Any, folder: Path) -> None:
    """Adds to an MLflow run the numbers that it lacks, then the files that were asked for by `logger.artifacts`."""
    client, run_id = logger.experiment, logger.run_id
    known = client.get_run(run_id).data.metrics
    for key, value in read_object(folder / "results.json").items():
        if isinstance(value, int | float) and key not in known:
            client.log_metric(run_id, key, value)
    client.set_tag(run_id, "status", str(read_object(folder / "results.json").get("status", "")))
    for name in dict.fromkeys(FILES[wanted] for wanted in logger.artifacts):
        path = folder / name
        if path.exists():
            (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path))
    if "mistakes" in logger.artifacts:
        for number, (image, caption) in enumerate(pictures(folder / FILES["mistakes"])):
            client.log_image(run_id, image, f"mistakes/{number:02}_{'_'.join(filter(str.isalnum, caption.split()))}.png")


def upload_to_tensorboard(logger: Any, folder: Path) -> None:
    """Gives TensorBoard how the run ended and, where they are asked for, the mistakes: images, or sentences as text."""
    import numpy as np

    results = read_object(folder / "results.json")
    logger.describe_end(results)
    step = int(results.get("steps") or 0)
    if "mistakes" in logger.artifacts:
        for number, (image, caption) in enumerate(pictures(folder / FILES["mistakes"])):
            pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(f"mistakes/{number:02} {caption}", pixels, step, dataformats="HWC")
    logger.experiment.flush()


def confusion_rows(path: Path) -> Rows:
    """True label, predicted label and count of each cell, from a scores.json."""
    confusion = read_object(path).get("confusion") or {}
    labels, counts = confusion.get("labels", []), confusion.get("counts", [])
    rows = [[labels[y], labels[x], count] for y, row in enumerate(counts) for x, count in enumerate(row)]
    return ["true", "predicted", "count"], rows


def class_rows(path: Path) -> Rows:
    """Precision, recall, F1 and support of each class and average, from a scores.json."""
    columns = ["name", "precision", "recall", "f1", "support"]
    tables = read_object(path).get("tables") or []
    rows = [row for table in tables for row in [*table.get("rows", []), *table.get("averages", [])]]
    return columns, [[row.get(column) for column in columns] for row in rows]


def mistake_rows(path: Path) -> Rows:
    """The surest mistakes, from a mistakes.json: image, true and predicted class, or a word with both labels on each line."""
    mistakes = read_object(path).get("mistakes") or []
    if mistakes and "words" in mistakes[0]:
        return ["index", "sentence"], [[mistake["index"], as_lines(mistake)] for mistake in mistakes]
    columns = ["index", "image", "true", "predicted", "confidence"]
    shown = ((mistake["index"], open_image(mistake), mistake["label"], mistake["predicted"]) for mistake in mistakes)
    return columns, [[*row, mistake.get("confidence")] for row, mistake in zip(shown, mistakes, strict=True)]


def prediction_rows(path: Path) -> Rows:
    """What was predicted of each test sample, at most MOST_ROWS, from a predictions.jsonl."""
    rows = []
    for prediction in read_predictions(path)[:MOST_ROWS]:
        if isinstance(prediction, ClassPrediction):
            rows.append([prediction.index, prediction.label, prediction.predicted, prediction.confidence])
        else:
            labels, predicted, _ = zip(*prediction.entries(), strict=True)
            rows.append([prediction.index, " ".join(labels), " ".join(predicted), None])
    return ["index", "true", "predicted", "confidence"], rows


TABLES: dict[Artifact, Callable[[Path], Rows]] = {
    "confusion": confusion_rows,
    "classes": class_rows,
    "mistakes": mistake_rows,
    "predictions": prediction_rows,
}


def pictures(path: Path) -> list[tuple[Any, str]]:
    """Image and caption of each mistake of a mistakes.json that has one."""
    mistakes = read_object(path).get("mistakes") or []
    shown = [mistake for mistake in mistakes if mistake.get("image")]
    return [(open_image(mistake), f"{mistake['label']} as {mistake['predicted']}") for mistake in shown]


def open_image(mistake: dict[str, Any]) -> Any:
    """The picture of a mistake, for PIL."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(mistake["image"]))) if mistake.get("image") else None


def as_lines(mistake: dict[str, Any]) -> str:
    """The words of a sentence, those that are wrong with the true and the predicted label."""
    places = zip(mistake["words"], mistake["labels"], mistake["predicted"], strict=True)
    return " ".join(word if true == said else f"{word} [{true}, predicted {said}]" for word, true, said in places)


def upload_artifacts(logger: Logger, folder: Path) -> None:
    """To a tracker that takes such things."""
    kinds = {
        "TrackedByWandb": upload_to_wandb,
        "TrackedByMlflow": upload_to_mlflow,
        "TrackedByTensorboard": upload_to_tensorboard,
    }
    if (give := kinds.get(type(logger).__name__)) is not None:
        give(logger, folder)
