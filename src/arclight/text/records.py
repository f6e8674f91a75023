"""The prediction record of a tagged sentence: one entry per word, F1 over entities by conlleval's lenient rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from arclight.metrics.records import Confidence, Counts, Entry, Label, Prediction, Segment


class Span(NamedTuple):
    """An entity from word `start` to the word before `end`."""

    start: int
    end: int
    type: str


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Returns the entities of IOB2 tags, as `entities.spans` does: an I-X that continues nothing begins one."""
    found: list[Span] = []
    start, open_type = 0, ""
    for position, tag in enumerate([*tags, "O"]):
        part, _, kind = tag.partition("-")
        if open_type and not (part == "I" and kind == open_type):
            found.append(Span(start, position, open_type))
            open_type = ""
        if kind and not open_type:
            start, open_type = position, kind
    return found


def segments(words: Sequence[str], tags: Sequence[str], others: Collection[Span]) -> list[Segment]:
    """Returns a sentence cut into its entities and the words between them; entities also in `others` are correct."""
    cut: list[Segment] = []
    end = 0
    for span in spans_of(tags):
        if end < span.start:
            cut.append(Segment(" ".join(words[end : span.start]), "", True))
        cut.append(Segment(" ".join(words[span.start : span.end]), span.type, span in others))
        end = span.end
    if end < len(words):
        cut.append(Segment(" ".join(words[end:]), "", True))
    return cut


@dataclass(frozen=True)
class SentencePrediction(Prediction):
    """IOB2 tag, predicted tag and probability of the predicted tag of each word.

    A word that the model never saw, because truncation cut it off or it consists of characters that the tokenizer drops, is
    predicted "O" by rule, with confidence None.
    """

    key = "labels"
    unit = "words"
    labels: tuple[Label, ...]
    predicted: tuple[Label, ...]
    confidence: tuple[Confidence, ...]

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.predicted) == len(self.confidence):
            raise ValueError("labels, predicted and confidence must be lists of the same length")

    @classmethod
    def from_entries(
        cls, index: int, labels: Sequence[str], predicted: Sequence[str], confidence: Sequence[float | None]
    ) -> Self:
        return cls(index, tuple(labels), tuple(predicted), tuple(confidence))

    @classmethod
    def metric_counts(cls, predictions: Sequence[Self]) -> dict[str, Counts]:
        by_type: dict[str, Counts] = {}
        words, entities = (np.zeros((len(predictions), 3), dtype=np.int64) for _ in range(2))
        for row, sentence in enumerate(predictions):
            num_correct = sum(label == predicted for label, predicted, _ in sentence.entries())
            words[row] = num_correct, len(sentence.labels), len(sentence.labels)
            true, predicted = set(spans_of(sentence.labels)), set(spans_of(sentence.predicted))
            for column, spans in enumerate((true & predicted, predicted, true)):
                for span in spans:
                    by_type.setdefault(span.type, np.zeros_like(words))[row, column] += 1
                    entities[row, column] += 1
        return {"f1": entities, "accuracy": words, **{f"f1/{name}": by_type[name] for name in sorted(by_type)}}

    def entries(self) -> Iterable[Entry]:
        return zip(self.labels, self.predicted, self.confidence, strict=True)

    def mark(self, words: Sequence[str]) -> tuple[list[Segment], list[Segment]]:
        if len(words) != len(self.labels):
            raise ValueError(f"row {self.index}: {len(words)} words and {len(self.labels)} labels")
        true, predicted = set(spans_of(self.labels)), set(spans_of(self.predicted))
        return segments(words, self.labels, predicted), segments(words, self.predicted, true)
