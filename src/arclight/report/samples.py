"""Errors and data set of a run for its report, from mistakes.json and data.json, validated: they may come from anyone."""

from __future__ import annotations

import json
import re
from typing import Any

from arclight.metrics.error_analysis import MAX_ERRORS, error_confidence
from arclight.metrics.records import Prediction, Segment, parse_record
from arclight.report.figures import LINES, length_chart

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
MAX_IMAGE_LENGTH = 200_000  # characters


def read_errors(text: str) -> dict[str, Any]:
    """Returns `pictures` and `sentences` of a mistakes.json: each error with labels, predicted labels and confidence."""
    entries = _dicts(json.loads(text), "mistakes")[:MAX_ERRORS]
    pictures, sentences = [], []
    for entry in entries:
        if "labels" in entry and "words" in entry:
            sentences.append(_marked(parse_record(entry), _words(entry)))
        elif "label" in entry:
            pictures.append({"error": parse_record(entry), "image": _picture(entry)})
    return {"pictures": pictures, "sentences": sentences}


def _marked(error: Prediction, words: list[str]) -> dict[str, Any]:
    true, predicted = error.mark(words)
    return {"index": error.index, "confidence": error_confidence(error), "true": true, "predicted": predicted}


def read_dataset_summary(text: str) -> dict[str, Any]:
    """Returns counts by class and split, samples of the training split, and the chart of lengths."""
    dataset_summary = json.loads(text)
    if not isinstance(dataset_summary, dict):
        raise ValueError(f"dict expected, {type(dataset_summary).__name__} found")
    counts = {split: _counts(numbers) for split, numbers in _dict(dataset_summary, "counts").items()}
    names = list(dict.fromkeys(name for numbers in counts.values() for name in numbers))
    totals = {split: sum(numbers.values()) for split, numbers in counts.items()}
    rows = [(name, [numbers.get(name, 0) for numbers in counts.values()]) for name in names]
    lengths = {
        split: {
            int(length): number for length, number in _counts(numbers).items() if length.isdecimal() and int(length) < 10_000
        }
        for split, numbers in _dict(dataset_summary, "lengths").items()
    }
    unit, legend = str(dataset_summary.get("length_unit", "length")), zip(lengths, LINES, strict=False)
    chart = ([(name, *line) for name, line in legend], length_chart(lengths, unit)) if any(lengths.values()) else None
    samples = _dicts(dataset_summary, "samples")[:MAX_ERRORS]
    return {
        "counts_title": str(dataset_summary.get("counts_title", "Samples per class")),
        "lengths_title": str(dataset_summary.get("lengths_title", "Sample lengths")),
        "splits": list(counts),
        "totals": list(totals.values()),
        "rows": rows,
        "most": max((max(numbers) for _, numbers in rows), default=0),
        "pictures": [{"label": str(sample.get("label")), "image": _picture(sample)} for sample in samples if "image" in sample],
        "sentences": [_sentence(sample) for sample in samples if "words" in sample],
        "lengths": chart,
    }


def _sentence(sample: dict[str, Any]) -> list[Segment]:
    words, labels = _words(sample), sample.get("labels") or []
    return parse_record({"index": 0, "labels": labels, "predicted": labels, "confidence": [None] * len(labels)}).mark(words)[0]


def _dict(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key}: dict expected, {type(value).__name__} found")
    return value


def _counts(numbers: Any) -> dict[str, int]:
    if not isinstance(numbers, dict) or not all(type(number) is int and number >= 0 for number in numbers.values()):
        raise ValueError("counts must map names to whole numbers")
    return {str(name): number for name, number in numbers.items()}


def _dicts(holder: Any, key: str) -> list[dict[str, Any]]:
    value = holder.get(key, []) if isinstance(holder, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"'{key}' must be a list of objects")
    return value


def _words(entry: dict[str, Any]) -> list[str]:
    words = entry.get("words")
    if not isinstance(words, list):
        raise ValueError("words must be a list")
    return [str(word) for word in words]


def _picture(entry: dict[str, Any]) -> str:
    """Returns a PNG in base64; empty where there is none."""
    image = entry.get("image", "")
    if image and not (isinstance(image, str) and len(image) <= MAX_IMAGE_LENGTH and BASE64.fullmatch(image)):
        raise ValueError("image must be a PNG in base64")
    return str(image)
