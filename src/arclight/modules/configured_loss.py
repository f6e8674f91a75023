"""`module.loss`: a loss that the config names, as the mean that is trained and as the sum that is evaluated."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from arclight.config.instantiate import find_target, parameters_of
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX

KEY = "module.loss"
LossFunction = nn.Module | Callable[..., Tensor]


class ConfiguredLoss(nn.Module):
    """A loss of logits (N, labels) at labels (N,): any of torch.nn, a function, or a class of the user's own.

    A mean, for training, is what the loss itself returns, so class weights and `ignore_index` have their meaning in torch. A
    sum, for evaluation, is that of the losses of single rows, those at IGNORE_INDEX left out. Divided by the number of labelled
    rows it is a mean that does not depend on how the data is divided into batches and processes. With class weights it is not
    torch's mean, which divides by the sum of the weights.

    The losses of single rows come from a copy with `reduction="none"`, or from calling a function with it. A loss that has no
    `reduction` is called with the labelled rows alone, for which a GPU is waited for; it returns their mean, or one loss each.

    Args:
        function: called with logits and labels.

    Raises:
        InputError: when it cannot be called so, or has weights, which no optimizer would train.
    """

    def __init__(self, function: LossFunction) -> None:
        super().__init__()
        name = getattr(function, "func", function)
        name = getattr(name, "__name__", type(name).__name__)
        if isinstance(function, functools.partial) and inspect.isclass(function.func):
            raise InputError(
                f"module.loss: {name} is a class, which is built before it is called; leave out _partial_", key=KEY
            )
        if not callable(function):
            raise InputError(f"module.loss: {name} cannot be called with logits and labels; name a loss", key=KEY)
        if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
            message = f"module.loss: {name} has weights, which no optimizer would train; make it a part of the net"
            raise InputError(message, key=KEY)
        self.function = function
        # in a tuple, so that the copy is no second owner of the buffers
        self._by_row = (_by_row(function),)

    def forward(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        """Returns the "mean" or "sum" of the losses."""
        if reduction == "mean":
            loss: Tensor = self._as_it_is()(logits, labels)
            return loss if loss.ndim == 0 else loss.mean()
        is_labelled = labels != IGNORE_INDEX
        by_row = self._by_row[0]
        if by_row is None:
            logits, labels = logits[is_labelled], labels[is_labelled]
            loss = self.function(logits, labels)
            return loss * len(labels) if loss.ndim == 0 else loss.sum()
        losses = by_row(logits, labels.masked_fill(~is_labelled, 0))
        losses = losses if losses.ndim == 1 else losses.flatten(1).mean(1)
        return losses.masked_fill(~is_labelled, 0).sum()

    def _as_it_is(self) -> Callable[..., Tensor]:
        """Returns the loss as it was configured; a function whose default may be another reduction is asked for the mean."""
        function = self.function
        if isinstance(function, nn.Module) or "reduction" in getattr(function, "keywords", {}) or self._by_row[0] is None:
            return function
        return functools.partial(function, reduction="mean")


class OneHotLoss(nn.Module):
    """Calls a loss whose targets have the shape of the logits, such as BCEWithLogitsLoss, with one-hot labels.

    Args:
        loss: called with logits (N, labels) and targets (N, labels) of 0 and 1.
        reduction: "mean", "sum" or "none".
    """

    def __init__(self, loss: LossFunction, reduction: str = "mean") -> None:
        super().__init__()
        self.loss = ConfiguredLoss(loss)
        self.reduction = reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of logits (N, labels) at labels (N,)."""
        targets = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        by_row = self.loss._by_row[0]
        losses = by_row(logits, targets).flatten(1).mean(1) if by_row else self.loss.function(logits, targets)
        return losses.mean() if self.reduction == "mean" else losses.sum() if self.reduction == "sum" else losses


def _by_row(function: LossFunction) -> Callable[..., Tensor] | None:
    """Returns the loss with `reduction="none"`; None for one that knows no reduction."""
    if isinstance(function, nn.Module):
        if not isinstance(getattr(function, "reduction", None), str):
            return None
        copied = copy.copy(function)  # shares its buffers, and so their device
        copied.reduction = "none"  # type: ignore[assignment]  # a plain attribute
        return copied
    try:
        takes_reduction = "reduction" in inspect.signature(function).parameters
    except ValueError:  # of a function in C
        takes_reduction = False
    return functools.partial(function, reduction="none") if takes_reduction else None


def loss_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields an error for a function in the place of a loss that lacks `_partial_`."""
    loss = settings.get("loss")
    if not isinstance(loss, Mapping):
        return
    target = str(loss.get("_target_", ""))
    try:
        is_function = inspect.isfunction(find_target(target, KEY))
        required = [one for one in parameters_of(target, KEY).values() if one.default is one.empty]
    except InputError:  # reported with all other targets
        return
    if is_function and len(required) >= 2 and not loss.get("_partial_"):
        message = f"module.loss: {target} is a function of logits and labels; add module.loss._partial_=true"
        yield InputError(message, key=KEY, suggestions=["module.loss._partial_=true"])
