"""Validation of mistakes.json and data.json beyond test_report."""

from __future__ import annotations

import json

import pytest

from arclight.report.samples import read_dataset_summary, read_errors


def test_entries_without_image_and_words_are_left_out() -> None:
    entries = [{"index": 0, "labels": ["O"], "predicted": ["B-X"], "confidence": [1.0]}, {}]
    assert read_errors(json.dumps({"mistakes": entries})) == {"pictures": [], "sentences": []}


def test_an_image_without_a_picture() -> None:
    entry = {"index": 0, "label": "a", "predicted": "b", "confidence": None}
    (picture,) = read_errors(json.dumps({"mistakes": [entry]}))["pictures"]
    assert (picture["image"], picture["file"]) == ("", "")
    (picture,) = read_errors(json.dumps({"mistakes": [{**entry, "file": "a/1.png"}]}))["pictures"]
    assert picture["file"] == "a/1.png"


@pytest.mark.parametrize("image", ['"><script>', "a b", "x" * 300_000, 7])
def test_images_must_be_base64(image: object) -> None:
    with pytest.raises(ValueError, match="must be a PNG in base64"):
        read_dataset_summary(json.dumps({"samples": [{"label": "a", "image": image}]}))


def test_classes_that_only_one_split_has() -> None:
    dataset_summary = read_dataset_summary('{"counts": {"train": {"a": 2}, "test": {"b": 3}}}')
    assert dataset_summary["rows"] == [("a", [2, 0]), ("b", [0, 3])]
    assert (dataset_summary["splits"], dataset_summary["totals"], dataset_summary["most"]) == (["train", "test"], [2, 3], 3)
