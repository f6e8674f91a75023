"""The lines of a run's `predictions.jsonl`: one sample each, written when the test has ended, read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arclight.errors import InputError


@dataclass(frozen=True)
class ImagePrediction:
    """One image: `index` is its row in the split, `confidence` the probability of `predicted`, None where it is no number."""

    index: int
    label: str
    predicted: str
    confidence: float | None


@dataclass(frozen=True)
class SentencePrediction:
    """One sentence, an entry per word: gold tag, predicted tag, probability of the predicted tag.

    `index` is the sentence's row in the split. A word that the net never saw, because truncation cut it off or it consists of
    what the tokenizer drops, is predicted "O" with confidence None: the rule says "O" there, no net does.
    """

    index: int
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    confidence: tuple[float | None, ...]


Prediction = ImagePrediction | SentencePrediction


def read_predictions(path: str | Path) -> list[Prediction]:
    """The predictions of a run's `predictions.jsonl`.

    Raises:
        InputError: when there is no such file, or a line of it is damaged; names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a run leaves predictions.jsonl when its test has ended") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as predictions: {error}") from error
    return parse_lines(text, str(path))


def parse_lines(text: str, name: str) -> list[Prediction]:
    """The predictions in the text of a file called `name`; raises InputError when a line of it is damaged."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [parse(line, f"{name}:{number}") for number, line in enumerate(lines, start=1)]


def parse(line: str, place: str) -> Prediction:
    """One line of the file; raises InputError with its place."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
        return sentence_prediction(fields) if "labels" in fields else image_prediction(fields)
    except (ValueError, KeyError, RecursionError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{place}: damaged, {reason}; write the file anew by running the test again") from None


def image_prediction(fields: dict[str, Any]) -> ImagePrediction:
    """Raises ValueError or KeyError when a field is missing or of the wrong type."""
    label, predicted = (text(fields[key]) for key in ("label", "predicted"))
    return ImagePrediction(index(fields["index"]), label, predicted, share(fields["confidence"]))


def sentence_prediction(fields: dict[str, Any]) -> SentencePrediction:
    """Raises ValueError or KeyError when a field is missing or of the wrong type, or the fields differ in length."""
    columns = [fields[key] for key in ("labels", "predicted", "confidence")]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        raise ValueError("labels, predicted and confidence are not lists of one length")
    labels, predicted = (tuple(map(text, column)) for column in columns[:2])
    return SentencePrediction(index(fields["index"]), labels, predicted, tuple(map(share, columns[2])))


def index(value: Any) -> int:
    """The value, if it is a row of a split."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"index {value!r} is no whole number of 0 or more")
    return value


def text(value: Any) -> str:
    """The value, if it is a label."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no label")
    return value


def share(value: Any) -> float | None:
    """The value, if it is a probability or stands for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"confidence {value!r} is no number from 0 to 1")
    return float(value)
