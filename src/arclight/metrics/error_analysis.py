"""Where a model is wrong, from its predictions: which labels it takes for which, which samples, and at which lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arclight.errors import InputError
from arclight.metrics.bootstrap import count, interval, score
from arclight.metrics.prediction_file import ImagePrediction, Prediction, SentencePrediction


@dataclass(frozen=True)
class Confusion:
    """How often one label was taken for another, and which share of all samples (words) of that label this is, 0..1."""

    label: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Scored:
    """A score of some samples, 0..1, with its 95 % bootstrap interval."""

    name: str
    num_samples: int
    score: float
    low: float
    high: float


def worst_confusions(predictions: Iterable[Prediction], num: int = 10) -> list[Confusion]:
    """What was most often taken for what, of sentences word by word; of equal counts the greater share first."""
    pairs: Counter[tuple[str, str]] = Counter()
    for prediction in predictions:
        if isinstance(prediction, ImagePrediction):
            pairs[prediction.label, prediction.predicted] += 1
        else:
            pairs.update(zip(prediction.labels, prediction.predicted, strict=True))
    support: Counter[str] = Counter()
    for (label, _), number in pairs.items():
        support[label] += number
    wrong = [Confusion(*pair, number, number / support[pair[0]]) for pair, number in pairs.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda confusion: (-confusion.count, -confusion.share, confusion.label, confusion.predicted))[:num]


def scores_by_class(predictions: Sequence[Prediction]) -> list[Scored]:
    """F1 of each class, of sentences of each entity type, by falling score."""
    counts = {name.removeprefix("f1/"): rows for name, rows in count(predictions).items() if name.startswith("f1/")}
    scored = [Scored(name, int(rows[:, 2].sum()), float(score(rows.sum(0))), *interval(rows)) for name, rows in counts.items()]
    return sorted(scored, key=lambda one: -one.score)


def scores_by_length(
    predictions: Sequence[Prediction], edges: Sequence[int] = (5, 10, 20, 40), *, metric: str = "f1"
) -> list[Scored]:
    """A score of the sentences of each length, those of which there are none left out.

    Args:
        predictions: of sentences.
        edges: most words of each group, rising; the last group holds the longer ones.
        metric: "f1" (entities), "accuracy" (words), or "f1/NAME" of one entity type.

    Raises:
        InputError: for predictions of images, which have no length, for edges that do not rise, or an unknown metric.
    """
    sentences = [prediction for prediction in predictions if isinstance(prediction, SentencePrediction)]
    if len(sentences) < len(predictions):
        raise InputError("predictions of images have no length; scores_by_class tells where they are wrong")
    if not edges or list(edges) != sorted({*edges}) or edges[0] < 1:
        raise InputError(f"edges={list(edges)} must be rising numbers of words from 1 on, such as [5, 10, 20, 40]")
    counts = count(sentences)
    if sentences and metric not in counts:
        raise InputError(f"metric={metric!r} is not counted of these predictions; take one of {', '.join(counts)}")
    scored, least = [], 1
    for most in [*edges, None]:
        rows = [
            row
            for row, sentence in enumerate(sentences)
            if least <= len(sentence.labels) and (most is None or len(sentence.labels) <= most)
        ]
        name = f"{least} or more" if most is None else f"{least} to {most}"
        if rows:
            chosen = counts[metric][rows]
            scored.append(Scored(name, len(rows), float(score(chosen.sum(0))), *interval(chosen)))
        least = (most or least) + 1
    return scored
