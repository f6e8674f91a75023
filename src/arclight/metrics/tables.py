"""Accuracy, and tables of precision, recall and F1, from counts or a confusion matrix.

A confusion matrix is int64 (classes, classes), rows true, columns predicted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arclight.console.terminal import format_metric, score_table

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Row:
    """Scores of one class or an average over classes, each 0..1, 0 for a division by 0; `support` counts true occurrences."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Table:
    """One row per class, and averages over them."""

    title: str
    rows: tuple[Row, ...]
    averages: tuple[Row, ...]

    def to_rich(self) -> rich.table.Table:
        """Returns the table for a terminal: three significant figures, a line above the averages."""
        sections = [
            [(row.name, [*map(format_metric, (row.precision, row.recall, row.f1)), str(row.support)]) for row in rows]
            for rows in (self.rows, self.averages)
        ]
        return score_table(self.title, ("precision", "recall", "f1", "support"), sections)


def accuracy(matrix: Tensor) -> float:
    """Returns the fraction of samples whose class was predicted, 0..1; 0 for an empty matrix."""
    total = int(matrix.sum())
    return int(matrix.trace()) / total if total else 0.0


def class_table(matrix: Tensor, classes: Sequence[str], *, title: str, leave_out: Collection[str] = ()) -> Table:
    """Returns precision, recall and F1 of each class and their averages, as scikit-learn's classification_report.

    With every class in the table, precision, recall and F1 of "micro avg" would all equal the accuracy, so it is left out.
    Classes in `leave_out`, such as "O", get no row and count in no average; a sample of them that was predicted as another
    class still counts against that class.
    """
    kept = [i for i, name in enumerate(classes) if name not in leave_out]
    counts = torch.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], dim=1)  # (classes, 3)
    averages = ("micro avg", "macro avg", "weighted avg") if len(kept) < len(classes) else ("macro avg", "weighted avg")
    return tabulate(counts[kept], [classes[i] for i in kept], title=title, averages=averages)


def tabulate(
    counts: Tensor,
    names: Sequence[str],
    *,
    title: str,
    averages: Sequence[str] = ("micro avg", "macro avg", "weighted avg"),
) -> Table:
    """Returns the table of some classes from their counts, int64 (classes, 3): true positives, predicted and true.

    `averages` names any of "micro avg" (scores of the summed counts), "macro avg" (plain mean of the rows) and "weighted avg"
    (mean of the rows weighted by support), in this order.
    """
    triples: list[list[int]] = counts.tolist()
    rows = tuple(_row(name, *triple) for name, triple in zip(names, triples, strict=True))
    micro = _row("micro avg", *(counts.sum(0).tolist()))
    macro = _mean("macro avg", rows, [1] * len(rows), micro.support)
    weighted = _mean("weighted avg", rows, [row.support for row in rows], micro.support)
    average_rows = {row.name: row for row in (micro, macro, weighted)}
    return Table(title, rows, tuple(average_rows[name] for name in averages))


def _row(name: str, correct: int, predicted: int, true: int) -> Row:
    return Row(name, _ratio(correct, predicted), _ratio(correct, true), _ratio(2 * correct, predicted + true), true)


def _mean(average: str, rows: Sequence[Row], weights: Sequence[int], support: int) -> Row:
    def mean(column: str) -> float:
        return _ratio(sum(getattr(row, column) * weight for row, weight in zip(rows, weights, strict=True)), sum(weights))

    return Row(average, mean("precision"), mean("recall"), mean("f1"), support)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
