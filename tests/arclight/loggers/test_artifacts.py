"""Tables and images of artifacts, also from missing and damaged files; uploads are tested with each logger."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from arclight.loggers.artifacts import class_rows, confusion_rows, error_images, error_rows, prediction_rows

ROW = {"name": "a", "precision": 0.5, "recall": 1.0, "f1": 0.6667, "support": 2}


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"confusion": {"labels": ["a", "b"], "counts": [[3, 0], [1, 2]]}}, ["aa3", "ab0", "ba1", "bb2"]),
        ({"confusion": None}, []),
        ([], []),
    ],
)
def test_confusion_rows(content: object, rows: list[str], tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(content))
    columns, found = confusion_rows(tmp_path / "scores.json")
    assert columns == ["true", "predicted", "count"]
    assert ["".join(map(str, row)) for row in found] == rows


def test_class_rows(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"tables": [{"rows": [ROW], "averages": [{**ROW, "name": "macro avg"}]}]}))
    assert [row[0] for row in class_rows(tmp_path / "scores.json")[1]] == ["a", "macro avg"]
    assert class_rows(tmp_path / "missing.json")[1] == []


def test_errors_are_images_or_annotated_words(tmp_path: Path) -> None:
    path = tmp_path / "mistakes.json"
    buffer = io.BytesIO()
    Image.new("RGB", (4, 5)).save(buffer, format="PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    path.write_text(json.dumps({"mistakes": [{"index": 7, "image": image, "label": "a", "predicted": "b", "confidence": 0.9}]}))
    ((index, found, *rest),) = error_rows(path)[1]
    assert (index, found.size, rest) == (7, (4, 5), ["a", "b", 0.9])
    ((again, caption),) = error_images(tmp_path)
    assert (again.size, caption) == ((4, 5), "a as b")
    sentence = {"index": 3, "words": ["EU", "met"], "labels": ["B-ORG", "O"], "predicted": ["O", "O"], "confidence": [0.9, 1.0]}
    path.write_text(json.dumps({"mistakes": [sentence]}))
    assert error_rows(path) == (["index", "sentence"], [[3, "EU [B-ORG, predicted O] met"]])
    assert error_images(tmp_path) == []
    path.write_text('{"mist')  # truncated
    assert error_rows(path)[1] == []


def test_prediction_rows(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"index": 0, "label": "a", "predicted": "b", "confidence": null}\n')
    assert prediction_rows(path)[1] == [[0, "a", "b", None]]
    path.write_text('{"index": 0, "labels": ["O", "B-X"], "predicted": ["O", "O"], "confidence": [1.0, 0.5]}\n')
    assert prediction_rows(path)[1] == [[0, "O B-X", "O O", None]]
