from __future__ import annotations

import math
from typing import Any

import pytest

from arclight.report.figures import read_series
from arclight.report.narrative import Epoch, read_epochs, summarize_run

SCORED = {"test/accuracy": 0.7349, "val/accuracy": 0.75, "epochs": 10, "time/total_s": 125.3, "monitor": "val/accuracy"}


def make_epochs(scores: list[float], losses: list[float], train: list[float]) -> list[Epoch]:
    rows = zip(scores, losses, train, strict=True)
    return [Epoch(place, {"val/accuracy": score, "val/loss": loss}, mean) for place, (score, loss, mean) in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("results", "interval", "expected"),
    [
        (SCORED, (0.726, 0.7444), "Test accuracy 0.735 (95 % interval 0.726 to 0.744) after 10 epochs in 2 min 05 s."),
        ({"test/f1": 0.5, "test/accuracy": 0.9, "epochs": 1}, None, "Test F1 0.500 after 1 epoch."),
        ({"val/f1": 0.5}, None, "Validation F1 0.500."),
        ({"test/accuracy": float("nan")}, None, "Test accuracy NaN."),
        ({"test/accuracy": None, "epochs": True, "time/total_s": "x"}, None, ""),
        ({}, None, ""),
    ],
)
def test_the_score(results: dict[str, Any], interval: tuple[float, float] | None, expected: str) -> None:
    assert summarize_run(results, [], interval) == expected


@pytest.mark.parametrize(
    ("scores", "losses", "train", "expected"),
    [
        ([0.5, 0.6, 0.7], [3, 2, 1], [3, 2, 1], "best epoch 3 of 3 by val/accuracy; still improving at the end."),
        (
            [0.5, 0.7, 0.6],
            [3, 2, 2.01],
            [3, 2, 1],
            "best epoch 2 of 3 by val/accuracy; no improvement in the 1 epoch",
        ),
        ([0.5, 0.7, 0.6, 0.6], [3, 2, 2.5, 3], [4, 3, 2, 1], "overfitting since epoch 3 (training loss fell"),
        ([0.5, 0.7, 0.6, 0.6], [3, 2, 2.5, 3], [1, 2, 3, 4], "no improvement in the 2 epochs after it."),
        ([0.5, 0.7], [3, math.nan], [3, 2], "validation loss NaN or infinite since epoch 2."),
        ([0.5, 0.7], [3, 2], [3, math.inf], "training loss NaN or infinite since epoch 2."),
        ([math.nan, math.nan], [3, 2], [3, 2], "in 2 min 05 s."),
        ([0.5], [3], [3], "in 2 min 05 s."),
    ],
)
def test_training_course(scores: list[float], losses: list[float], train: list[float], expected: str) -> None:
    assert expected in summarize_run(SCORED, make_epochs(scores, losses, train), None)


def test_a_lower_loss_is_better() -> None:
    expected = summarize_run({"monitor": "val/loss"}, make_epochs([0.1, 0.2, 0.3], [1, 2, 1.5], [3, 3, 3]), None)
    assert expected.startswith("Best epoch 1 of 3 by val/loss")


def test_the_stored_mode_says_which_epoch_is_best() -> None:
    text = "step,epoch,val_gap\n1,0,3\n2,1,1\n3,2,2\n"
    for mode, best in (("min", 2), ("max", 1)):
        results = {"monitor": "val/gap", "monitor_mode": mode}
        assert summarize_run(results, read_epochs(read_series(text, results)), None).startswith(
            f"Best epoch {best} of 3 by val/gap"
        )


def test_epochs_of_a_metrics_file() -> None:
    text = """step,epoch,val/loss,train/loss
1,,,4
2,,,2
1,0,3,
3,,,nan
3,1,9,
3,1,2,
5,2,1
5,x,1,
"""
    found = read_epochs(read_series(text, {}))
    assert [(epoch.number, epoch.metrics["val/loss"]) for epoch in found] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert found[0].train_loss == 3.0
    assert found[1].train_loss == math.inf
    assert math.isnan(found[2].train_loss)
