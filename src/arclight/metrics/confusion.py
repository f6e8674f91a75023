"""Scores of a classifier from its confusion matrix: int64 counts (classes, classes), rows true, columns predicted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from arclight.metrics.tables import Table, tabulate


def accuracy(matrix: Tensor) -> float:
    """Returns the fraction of samples whose class was predicted, 0..1; 0 for an empty matrix."""
    total = int(matrix.sum())
    return int(matrix.trace()) / total if total else 0.0


def class_table(matrix: Tensor, classes: Sequence[str], *, title: str, leave_out: Collection[str] = ()) -> Table:
    """Returns precision, recall and F1 of each class and their averages, as scikit-learn's classification_report.

    With every class in the table, precision, recall and F1 of "micro avg" would all equal the accuracy, so it is left out.

    Args:
        matrix: int64 (classes, classes), rows true, columns predicted.
        classes: their names, in the order of the matrix.
        title: of the table.
        leave_out: classes that get no row and count in no average, such as "O". Samples of them that were predicted as another
            class still count against that class.
    """
    kept = [i for i, name in enumerate(classes) if name not in leave_out]
    counts = torch.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], dim=1)  # (classes, 3)
    averages = ("micro avg", "macro avg", "weighted avg") if len(kept) < len(classes) else ("macro avg", "weighted avg")
    return tabulate(counts[kept], [classes[i] for i in kept], title=title, averages=averages)
