"""A loss by YAML: the same training loss as torch's, and an evaluation that no division into batches changes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arclight.config.instantiate import build
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.modules.configured_loss import ConfiguredLoss, OneHotLoss, loss_errors

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 1, IGNORE_INDEX, 0, 1, IGNORE_INDEX])
LABELLED = LABELS != IGNORE_INDEX


def focal(logits: Tensor, targets: Tensor, gamma: float = 2.0, reduction: str = "none") -> Tensor:
    """As torchvision.ops.sigmoid_focal_loss: of one-hot targets, by element unless told otherwise."""
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * (1 - logits.sigmoid()) ** gamma
    return losses.mean() if reduction == "mean" else losses


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """A function without `reduction`, which returns a mean and cannot take IGNORE_INDEX."""
    return (1 - logits.gather(1, labels[:, None])).clamp(min=0).mean()


class ByRow(nn.Module):
    """A class of a user's own that returns a loss for each row."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (1 - logits.gather(1, labels[:, None])).clamp(min=0)[:, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        {"_target_": "torch.nn.MultiMarginLoss"},
        {"_target_": "torch.nn.functional.cross_entropy", "_partial_": True, "label_smoothing": 0.1},
        {"_target_": f"{__name__}.margin", "_partial_": True},
        {"_target_": f"{__name__}.ByRow"},
        {
            "_target_": "arclight.modules.configured_loss.OneHotLoss",
            "loss": {"_target_": f"{__name__}.focal", "_partial_": True, "gamma": 1.5},
        },
        {"_target_": "arclight.modules.configured_loss.OneHotLoss", "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"}},
    ],
)
def test_the_sum_over_any_batches_is_the_mean_times_the_labelled_rows(settings: dict[str, Any]) -> None:
    loss = ConfiguredLoss(build(settings, "module.loss"))
    mean = loss(LOGITS[LABELLED], LABELS[LABELLED], "mean")
    sums = sum(loss(LOGITS[rows], LABELS[rows], "sum") for rows in torch.arange(7).split([1, 4, 2]))
    torch.testing.assert_close(sums, mean * LABELLED.sum())


def test_training_gets_what_torch_returns() -> None:
    weight = torch.tensor([1.0, 5.0, 0.5])
    configured = {"_target_": "torch.nn.CrossEntropyLoss", "weight": {"_target_": "torch.tensor", "data": [1.0, 5.0, 0.5]}}
    built: nn.CrossEntropyLoss = build(configured, "module.loss", is_trusted=False)
    expected = nn.CrossEntropyLoss(weight=weight)(LOGITS, LABELS)
    assert torch.equal(ConfiguredLoss(built)(LOGITS, LABELS, "mean"), expected)
    summed = ConfiguredLoss(nn.CrossEntropyLoss(reduction="sum"))(LOGITS, LABELS, "mean")
    assert torch.equal(summed, nn.functional.cross_entropy(LOGITS, LABELS, reduction="sum"))


def test_class_weights_are_kept_once_and_move_with_the_loss() -> None:
    loss = ConfiguredLoss(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5]))).double()
    assert list(loss.state_dict()) == ["function.weight"]
    assert loss(LOGITS.double(), LABELS, "sum").dtype == torch.float64
    expected = nn.functional.cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 5.0, 0.5]), reduction="sum")
    torch.testing.assert_close(loss(LOGITS.double(), LABELS, "sum").float(), expected)


def test_a_loss_by_element_is_trained_by_its_mean() -> None:
    one_hot = nn.functional.one_hot(LABELS[LABELLED], 3).float()
    loss = ConfiguredLoss(functools.partial(focal, gamma=1.5))
    torch.testing.assert_close(loss(LOGITS[LABELLED], one_hot, "mean"), focal(LOGITS[LABELLED], one_hot, 1.5).mean())
    assert OneHotLoss(nn.BCEWithLogitsLoss(), reduction="none")(LOGITS[LABELLED], LABELS[LABELLED]).shape == (5,)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (functools.partial(nn.CrossEntropyLoss), "CrossEntropyLoss is a class.*leave out _partial_"),
        ("cross_entropy", "str cannot be called with logits and labels"),
        (nn.Linear(2, 2), "Linear has weights, which no optimizer would train"),
    ],
)
def test_what_is_no_loss_is_refused(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"module.loss: {message}"):
        ConfiguredLoss(function)


def test_a_function_without_partial_is_reported() -> None:
    (error,) = loss_errors({"loss": {"_target_": "torch.nn.functional.cross_entropy"}})
    assert "is a function of logits and labels; add module.loss._partial_=true" in str(error)
    for fine in (None, {"_target_": "torch.nn.CrossEntropyLoss"}, {"_target_": "nowhere.Loss"}):
        assert not list(loss_errors({"loss": fine}))
