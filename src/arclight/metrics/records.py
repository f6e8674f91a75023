"""Prediction records: the lines of a run's `predictions.jsonl`, one test sample each. Reading them does not import torch.

Every record type registers itself. `ClassPrediction` serves any task with one label per sample; a toolkit defines others in its
module `records`, which is imported when a line needs it.
"""

from __future__ import annotations

import functools
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from arclight.config.atomic_file import read_file
from arclight.errors import InputError

Counts = NDArray[np.int64]  # (samples, 3): true positives, predicted, true
Entry = tuple[str, str, float | None]  # label, predicted label, confidence

# types of fields, validated when a line is read
Index = Annotated[int, Field(strict=True, ge=0)]
Label = Annotated[str, Field(strict=True)]
Confidence = Annotated[float, Field(strict=True, ge=0, le=1)] | None


class Segment(NamedTuple):
    """Part of a text; `type` is empty outside of marked parts, `is_right` says whether label and prediction agree on it."""

    text: str
    type: str
    is_right: bool


@dataclass(frozen=True)
class Prediction(ABC):
    """What was predicted for one test sample: a frozen dataclass whose fields are the keys of its line in `predictions.jsonl`.

    `key` is the field that only lines of a type have, `unit` what its entries are called in the report.
    """

    index: Index  # row in the test split
    key: ClassVar[str]
    unit: ClassVar[str] = "samples"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        RECORD_TYPES[cls.key] = cls

    @classmethod
    @abstractmethod
    def from_entries(
        cls, index: int, labels: Sequence[str], predicted: Sequence[str], confidence: Sequence[float | None]
    ) -> Self:
        """Returns the record of one sample from its labels, predicted labels and confidences."""

    @classmethod
    @abstractmethod
    def metric_counts(cls, predictions: Sequence[Any]) -> dict[str, Counts]:
        """Returns each sample's counts by metric ("accuracy", "f1", "f1/NAME" of a class); F1 of their sum is the metric."""

    @abstractmethod
    def entries(self) -> Iterable[Entry]:
        """Returns label, predicted label and confidence of every labelled position of the sample."""

    def mark(self, words: Sequence[str]) -> tuple[list[Segment], list[Segment]]:
        """Returns the words of the sample cut into segments, by its labels and by its predicted labels."""
        raise ValueError(f"a record with the key '{self.key}' has no words")

    @property
    def truth(self) -> tuple[str, ...]:
        return tuple(label for label, _, _ in self.entries())


RECORD_TYPES: dict[str, type[Prediction]] = {}  # by `key`
validator = functools.cache(TypeAdapter)  # of a record type


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """One label per sample; `confidence` is the probability of `predicted`, None where it is not finite."""

    key = "label"
    label: Label
    predicted: Label
    confidence: Confidence

    @classmethod
    def from_entries(
        cls, index: int, labels: Sequence[str], predicted: Sequence[str], confidence: Sequence[float | None]
    ) -> Self:
        return cls(index, labels[0], predicted[0], confidence[0])

    @classmethod
    def metric_counts(cls, predictions: Sequence[Self]) -> dict[str, Counts]:
        names = sorted({name for one in predictions for name in (one.label, one.predicted)})
        numbers = {name: number for number, name in enumerate(names)}
        true = np.array([numbers[one.label] for one in predictions])
        predicted = np.array([numbers[one.predicted] for one in predictions])
        ones = np.ones(len(predictions), dtype=np.int64)
        counts = {"accuracy": np.stack([(true == predicted).astype(np.int64), ones, ones], axis=1)}
        for name, number in numbers.items():
            columns = [(true == number) & (predicted == number), predicted == number, true == number]
            counts[f"f1/{name}"] = np.stack(columns, axis=1).astype(np.int64)
        return counts

    def entries(self) -> Iterable[Entry]:
        return [(self.label, self.predicted, self.confidence)]


def metric_counts(predictions: Sequence[Prediction]) -> dict[str, Counts]:
    """Returns the counts of each sample by metric, as `Prediction.metric_counts`; raises ValueError for mixed types."""
    types = {type(prediction) for prediction in predictions}
    if len(types) > 1:
        raise ValueError(f"records of several types: {', '.join(sorted(kind.__name__ for kind in types))}")
    return types.pop().metric_counts(predictions) if types else {}


def read_predictions(path: str | Path) -> list[Prediction]:
    """Returns the records of a run's `predictions.jsonl`.

    Raises:
        InputError: when the file does not exist or a line is damaged; names file and line.
    """
    path = Path(path)
    try:
        text = read_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a run writes predictions.jsonl at the end of its test") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as predictions: {error}") from error
    return parse_lines(text, str(path))


def parse_lines(text: str, name: str) -> list[Prediction]:
    """Returns the records in the text of a file called `name`; raises InputError when a line is damaged."""
    records = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            records.append(parse_record(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{number}: damaged, {error}; run the test again to rewrite the file") from None
    return records


def parse_record(fields: Any) -> Prediction:
    """Returns the record of a decoded line, whose type follows from its keys; raises ValueError when it is invalid."""
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    if not fields.keys() & RECORD_TYPES.keys():
        _import_toolkit_records()
    key = next((key for key in RECORD_TYPES if key in fields), ClassPrediction.key)
    try:
        record: Prediction = validator(RECORD_TYPES[key]).validate_python(fields)
        return record
    except ValidationError as error:
        first = error.errors()[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None


def _import_toolkit_records() -> None:
    """Imports the module `records` of every package of the engine that has one."""
    for file in sorted(Path(__file__).parents[1].glob("*/records.py")):
        importlib.import_module(f"{__package__.rpartition('.')[0]}.{file.parent.name}.records")
