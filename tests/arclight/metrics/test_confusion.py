"""Scores from a confusion matrix, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report
from torchmetrics.classification import MulticlassConfusionMatrix

from arclight.metrics.tables import Row, Table, accuracy, class_table

MATRIX = torch.tensor([[5, 1, 0], [2, 2, 0], [1, 0, 0]])  # "c" is never predicted


def matrix_of(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> torch.Tensor:
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for row, column in zip(gold, predicted, strict=True):
        matrix[row, column] += 1
    return matrix


def assert_same(table: Table, report: dict[str, Any]) -> None:
    rows = [*table.rows, *table.averages]
    for row in rows:
        expected = report[row.name]
        got = (row.precision, row.recall, row.f1, row.support)
        assert got == pytest.approx(tuple(expected[key] for key in ("precision", "recall", "f1-score", "support")), abs=1e-12)
    assert {row.name for row in rows} == set(report) - {"accuracy"}


def test_accuracy_is_the_hand_counted_one() -> None:
    assert accuracy(MATRIX) == 7 / 11
    assert accuracy(torch.zeros(3, 3, dtype=torch.int64)) == 0.0


def test_rows_are_the_hand_counted_ones() -> None:
    table = class_table(MATRIX, ("a", "b", "c"), title="letters")
    assert table.title == "letters"
    assert table.rows == (
        Row("a", 5 / 8, 5 / 6, 10 / 14, 6),
        Row("b", 2 / 3, 2 / 4, 4 / 7, 4),
        Row("c", 0.0, 0.0, 0.0, 1),
    )
    assert [row.name for row in table.averages] == ["macro avg", "weighted avg"]


def test_a_class_left_out_still_counts_against_the_others() -> None:
    table = class_table(MATRIX, ("O", "b", "c"), title="letters", leave_out=("O",))
    assert table.rows == (Row("b", 2 / 3, 2 / 4, 4 / 7, 4), Row("c", 0.0, 0.0, 0.0, 1))
    assert table.averages[0] == Row("micro avg", 2 / 3, 2 / 5, 4 / 8, 5)
    assert [row.name for row in table.averages] == ["micro avg", "macro avg", "weighted avg"]


def test_scores_equal_those_of_scikit_learn_on_random_cases() -> None:
    random = np.random.default_rng(0)
    for case in range(300):
        num_classes = int(random.integers(1, 7))
        names = [f"class {i}" for i in range(num_classes)]
        # uneven chances, so that classes are often absent, never predicted or both
        chances = random.dirichlet(np.full(num_classes, 0.5), size=2)
        size = int(random.integers(1, 20))
        gold, predicted = (random.choice(num_classes, size=size, p=chance) for chance in chances)
        matrix = matrix_of(gold, predicted, num_classes)
        assert accuracy(matrix) == accuracy_score(gold, predicted)
        left_out = names[: case % num_classes]
        labels = list(range(len(left_out), num_classes))
        report = classification_report(
            gold, predicted, labels=labels, target_names=names[len(left_out) :], output_dict=True, zero_division=0
        )
        if left_out and "accuracy" in report:  # so scikit-learn calls the micro average when no class left out occurs
            scores = dict.fromkeys(("precision", "recall", "f1-score"), report["accuracy"])
            report["micro avg"] = {**scores, "support": report["macro avg"]["support"]}
        assert_same(class_table(matrix, names, title="", leave_out=left_out), report)


def test_scores_equal_those_of_scikit_learn_on_a_large_case() -> None:
    random = np.random.default_rng(1)
    gold, predicted = random.integers(0, 9, (2, 20_000))
    names = ["O", *(f"tag {i}" for i in range(1, 9))]
    counts = MulticlassConfusionMatrix(9)
    counts.update(torch.from_numpy(predicted), torch.from_numpy(gold))
    report = classification_report(gold, predicted, labels=range(1, 9), target_names=names[1:], output_dict=True)
    assert_same(class_table(counts.compute(), names, title="", leave_out=("O",)), report)
