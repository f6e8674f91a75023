"""Files of a run as tables and images, for the loggers that upload them at the end."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from arclight.config.atomic_file import read_json
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
MAX_ROWS = 10_000  # of a table; W&B shows no more

Rows = tuple[list[str], list[list[Any]]]  # names of the columns, and a list for each row


def confusion_rows(path: Path) -> Rows:
    """Returns true label, predicted label and count of each cell of a scores.json."""
    confusion = read_json(path).get("confusion") or {}
    labels, counts = confusion.get("labels", []), confusion.get("counts", [])
    rows = [[labels[y], labels[x], count] for y, row in enumerate(counts) for x, count in enumerate(row)]
    return ["true", "predicted", "count"], rows


def class_rows(path: Path) -> Rows:
    """Returns precision, recall, F1 and support of each class and average of a scores.json."""
    columns = ["name", "precision", "recall", "f1", "support"]
    tables = read_json(path).get("tables") or []
    rows = [row for table in tables for row in [*table.get("rows", []), *table.get("averages", [])]]
    return columns, [[row.get(column) for column in columns] for row in rows]


def error_rows(path: Path) -> Rows:
    """Returns the most confident errors of a mistakes.json: image and labels, or words with the labels of the wrong ones."""
    errors = read_json(path).get("mistakes") or []
    if errors and "words" in errors[0]:
        return ["index", "sentence"], [[error["index"], annotated(error)] for error in errors]
    rows = [
        [error["index"], open_image(error), error["label"], error["predicted"], error.get("confidence")] for error in errors
    ]
    return ["index", "image", "true", "predicted", "confidence"], rows


def annotated(error: dict[str, Any]) -> str:
    """Returns the words of an entry, wrong ones with their true and predicted label."""
    entries = zip(error["words"], error["labels"], error["predicted"], strict=True)
    return " ".join(word if true == said else f"{word} [{true}, predicted {said}]" for word, true, said in entries)


def prediction_rows(path: Path) -> Rows:
    """Returns labels, predicted labels and confidence of each test sample of a predictions.jsonl, at most MAX_ROWS."""
    rows = []
    for prediction in read_predictions(path)[:MAX_ROWS]:
        predicted = " ".join(label for _, label, _ in prediction.entries())
        confidence = prediction.confidence if isinstance(prediction, ClassPrediction) else None
        rows.append([prediction.index, " ".join(prediction.truth), predicted, confidence])
    return ["index", "true", "predicted", "confidence"], rows


TABLES: dict[Artifact, Callable[[Path], Rows]] = {
    "confusion": confusion_rows,
    "classes": class_rows,
    "mistakes": error_rows,
    "predictions": prediction_rows,
}


def error_images(run_dir: Path) -> list[tuple[Any, str]]:
    """Returns image and caption of each entry of mistakes.json that has an image."""
    errors = read_json(run_dir / FILES["mistakes"]).get("mistakes") or []
    with_image = [error for error in errors if error.get("image")]
    return [(open_image(error), f"{error['label']} as {error['predicted']}") for error in with_image]


def open_image(error: dict[str, Any]) -> Any:
    """Returns the PIL image of an entry; None where it has none."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(error["image"]))) if error.get("image") else None
