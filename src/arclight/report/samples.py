"""Errors and data set of a run for its report, from mistakes.json and data.json, validated: they may come from anyone."""

from __future__ import annotations

import json
import re
from typing import Any

from arclight.metrics.error_analysis import MAX_ERRORS, error_confidence
from arclight.metrics.records import Segment, parse_record
from arclight.report.figures import LINES, length_chart
from arclight.report.page import expect

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
MAX_IMAGE_LENGTH = 200_000  # characters
MAX_LENGTH = 10_000  # of a sample; longer ones are not drawn


def read_errors(text: str) -> dict[str, Any]:
    """Returns `pictures` and `sentences` of a mistakes.json: each error with labels, predicted labels and confidence."""
    pictures, sentences = [], []
    for entry in _dicts(json.loads(text), "mistakes")[:MAX_ERRORS]:
        if "labels" in entry and "words" in entry:
            error = parse_record(entry)
            true, predicted = error.mark(_words(entry))
            confidence = error_confidence(error)
            sentences.append({"index": error.index, "confidence": confidence, "true": true, "predicted": predicted})
        elif "label" in entry:
            pictures.append({"error": parse_record(entry), "image": _picture(entry), "file": str(entry.get("file") or "")})
    return {"pictures": pictures, "sentences": sentences}


def read_dataset_summary(text: str) -> dict[str, Any]:
    """Returns counts by class and split, samples of the training split, and the chart of lengths."""
    dataset_summary = expect(dict, json.loads(text))
    counts = _counts_by_split(dataset_summary, "counts")
    names = dict.fromkeys(name for numbers in counts.values() for name in numbers)
    rows = [(name, [numbers.get(name, 0) for numbers in counts.values()]) for name in names]
    lengths = {
        split: {int(length): number for length, number in numbers.items() if length.isdecimal() and int(length) < MAX_LENGTH}
        for split, numbers in _counts_by_split(dataset_summary, "lengths").items()
    }
    unit, legend = str(dataset_summary.get("length_unit", "length")), zip(lengths, LINES, strict=False)
    chart = ([(name, *line) for name, line in legend], length_chart(lengths, unit)) if any(lengths.values()) else None
    samples = _dicts(dataset_summary, "samples")[:MAX_ERRORS]
    return {
        "counts_title": str(dataset_summary.get("counts_title", "Samples per class")),
        "lengths_title": str(dataset_summary.get("lengths_title", "Sample lengths")),
        "splits": list(counts),
        "totals": [sum(numbers.values()) for numbers in counts.values()],
        "rows": rows,
        "most": max((max(numbers) for _, numbers in rows), default=0),
        "pictures": [{"label": str(sample.get("label")), "image": _picture(sample)} for sample in samples if "image" in sample],
        "sentences": [_sentence(sample) for sample in samples if "words" in sample],
        "lengths": chart,
    }


def _sentence(sample: dict[str, Any]) -> list[Segment]:
    words, labels = _words(sample), sample.get("labels") or []
    return parse_record({"index": 0, "labels": labels, "predicted": labels, "confidence": [None] * len(labels)}).mark(words)[0]


def _counts_by_split(holder: dict[str, Any], key: str) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = expect(dict, holder.get(key) or {})
    for numbers in counts.values():
        if not isinstance(numbers, dict) or not all(type(number) is int and number >= 0 for number in numbers.values()):
            raise ValueError("counts must map names to whole numbers")
    return counts


def _dicts(holder: Any, key: str) -> list[dict[str, Any]]:
    value = holder.get(key, []) if isinstance(holder, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"'{key}' must be a list of objects")
    return value


def _words(entry: dict[str, Any]) -> list[str]:
    return [str(word) for word in expect(list, entry.get("words"))]


def _picture(entry: dict[str, Any]) -> str:
    """Returns a PNG in base64; empty where there is none."""
    image = entry.get("image", "")
    if image and not (isinstance(image, str) and len(image) <= MAX_IMAGE_LENGTH and BASE64.fullmatch(image)):
        raise ValueError("image must be a PNG in base64")
    return str(image)
