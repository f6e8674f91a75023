"""Where a model is wrong: the most confident errors, the most frequent confusions, scores by class and by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arclight.errors import InputError
from arclight.metrics.bootstrap import confidence_interval, f1_score
from arclight.metrics.records import ClassPrediction, Counts, Prediction, metric_counts

MAX_ERRORS = 24  # that a run keeps in mistakes.json


@dataclass(frozen=True)
class Confusion:
    """How often one label was predicted as another, and the fraction of that label's entries, 0..1."""

    label: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Scored:
    """A metric over some samples, 0..1, with its 95 % bootstrap interval."""

    name: str
    num_samples: int
    score: float
    low: float
    high: float


def most_confident_errors(predictions: Iterable[Prediction], num: int = MAX_ERRORS) -> list[Prediction]:
    """Returns the samples with a wrong label, by falling confidence of what is wrong in them, then by their row."""
    wrong = [(error_confidence(one), one) for one in predictions if any(label != said for label, said, _ in one.entries())]
    return [prediction for _, prediction in sorted(wrong, key=lambda pair: (-pair[0], pair[1].index))[:num]]


def error_confidence(prediction: Prediction) -> float:
    """Returns the highest confidence of a wrong label, 0..1; 0 where none has one."""
    return max((sure or 0.0 for label, predicted, sure in prediction.entries() if label != predicted), default=0.0)


def worst_confusions(predictions: Iterable[Prediction], num: int = 10) -> list[Confusion]:
    """Returns the most frequent confusions over all entries; of equal counts the greater fraction first."""
    pairs = Counter((label, predicted) for prediction in predictions for label, predicted, _ in prediction.entries())
    support: Counter[str] = Counter()
    for (label, _), number in pairs.items():
        support[label] += number
    wrong = [Confusion(*pair, number, number / support[pair[0]]) for pair, number in pairs.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda confusion: (-confusion.count, -confusion.share, confusion.label, confusion.predicted))[:num]


def scores_by_class(predictions: Sequence[Prediction]) -> list[Scored]:
    """Returns F1 of each class or entity type, by falling score."""
    counts = {name.removeprefix("f1/"): rows for name, rows in metric_counts(predictions).items() if name.startswith("f1/")}
    scored = [_scored(name, int(rows[:, 2].sum()), rows) for name, rows in counts.items()]
    return sorted(scored, key=lambda one: -one.score)


def scores_by_length(
    predictions: Sequence[Prediction], edges: Sequence[int] = (5, 10, 20, 40), *, metric: str = "f1"
) -> list[Scored]:
    """Returns a metric over the samples of each length; lengths without samples are left out.

    Args:
        predictions: of samples with several labels each; their number is the length.
        edges: upper bound of each length group, rising; the last group holds longer samples.
        metric: "f1", "accuracy", or "f1/NAME" of one class.

    Raises:
        InputError: for records of one label each, for edges that do not rise, or an unknown metric.
    """
    if any(isinstance(prediction, ClassPrediction) for prediction in predictions):
        raise InputError("predictions with one label per sample have no length; use scores_by_class")
    if not edges or list(edges) != sorted({*edges}) or edges[0] < 1:
        raise InputError(f"edges={list(edges)} must be rising whole numbers from 1, such as [5, 10, 20, 40]")
    counts = metric_counts(predictions)
    if predictions and metric not in counts:
        raise InputError(f"metric={metric!r} is not available for these predictions; use one of {', '.join(counts)}")
    lengths = [len(prediction.truth) for prediction in predictions]
    scored, low = [], 1
    for high in [*edges, None]:
        rows = [row for row, length in enumerate(lengths) if low <= length and (high is None or length <= high)]
        if rows:
            scored.append(_scored(f"{low} or more" if high is None else f"{low} to {high}", len(rows), counts[metric][rows]))
        low = (high or low) + 1
    return scored


def _scored(name: str, num_samples: int, counts: Counts) -> Scored:
    return Scored(name, num_samples, float(f1_score(counts.sum(0))), *confidence_interval(counts))
