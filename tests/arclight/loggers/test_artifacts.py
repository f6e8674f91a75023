"""What reaches the trackers is tested in test_trackers; here is what is read for it, and what goes wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from arclight.images.previews import picture
from arclight.loggers.artifacts import class_rows, confusion_rows, mistake_rows, pictures, prediction_rows

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
    assert class_rows(tmp_path / "nowhere.json")[1] == []


def test_mistakes_are_pictures_or_sentences(tmp_path: Path) -> None:
    path = tmp_path / "mistakes.json"
    image = picture(torch.zeros(3, 5, 4, dtype=torch.uint8))
    path.write_text(json.dumps({"mistakes": [{"index": 7, "image": image, "label": "a", "predicted": "b", "confidence": 0.9}]}))
    ((index, shown, *rest),) = mistake_rows(path)[1]
    assert (index, shown.size, rest) == (7, (4, 5), ["a", "b", 0.9])
    ((again, caption),) = pictures(path)
    assert (again.size, caption) == ((4, 5), "a as b")
    sentence = {"index": 3, "words": ["EU", "met"], "labels": ["B-ORG", "O"], "predicted": ["O", "O"], "confidence": [0.9, 1.0]}
    path.write_text(json.dumps({"mistakes": [sentence]}))
    assert mistake_rows(path) == (["index", "sentence"], [[3, "EU [B-ORG, predicted O] met"]])
    assert pictures(path) == []
    path.write_text('{"mist')  # half written
    assert mistake_rows(path)[1] == []


def test_prediction_rows(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"index": 0, "label": "a", "predicted": "b", "confidence": null}\n')
    assert prediction_rows(path)[1] == [[0, "a", "b", None]]
    path.write_text('{"index": 0, "labels": ["O", "B-X"], "predicted": ["O", "O"], "confidence": [1.0, 0.5]}\n')
    assert prediction_rows(path)[1] == [[0, "O B-X", "O O", None]]
