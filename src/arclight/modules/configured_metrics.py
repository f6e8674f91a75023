"""`module.metrics`: metrics of torchmetrics that the config names, next to those of the module."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchmetrics import Metric

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX

KEY = "module.metrics"
Metrics = Sequence[Metric] | Mapping[str, Metric]


class ConfiguredMetrics(nn.Module):
    """Metrics of logits (N, labels) and labels (N,), exact over any number of batches and processes.

    No `MetricCollection`: it lets metrics share their states that happen to be equal after the first batch.

    Args:
        metrics: by name; those of a list are named by their class, `MulticlassF1Score` is `multiclass_f1_score`.

    Raises:
        InputError: when one is no metric, or two have one name.
    """

    def __init__(self, metrics: Metrics | None) -> None:
        super().__init__()
        metrics = metrics or ()
        named = list(metrics.items()) if isinstance(metrics, Mapping) else [(snake_case(type(one)), one) for one in metrics]
        for name, metric in named:
            if not isinstance(metric, Metric):
                message = f"{KEY}: {name} is a {type(metric).__name__}, not a torchmetrics.Metric; name a class of torchmetrics"
                raise InputError(message, key=KEY)
            if not re.fullmatch(r"[\w-]+", name):
                raise InputError(f"{KEY}: the name {name!r} must consist of letters, digits, _ and -", key=KEY)
        self.names = tuple(name for name, _ in named)
        if doubled := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InputError(
                f"{KEY} lists {doubled[0]} twice; give each a name of its own, such as {KEY}={{first: {{_target_: ...}}}}",
                key=KEY,
            )
        self.metrics = nn.ModuleList(metric for _, metric in named)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch; rows at IGNORE_INDEX are left out, for which a GPU is waited for."""
        if self.names:
            is_labelled = labels != IGNORE_INDEX
            logits, labels = logits[is_labelled], labels[is_labelled]
            for metric in self.metrics if len(labels) else ():
                metric.update(logits, labels)  # type: ignore[operator]  # a list of metrics

    def compute(self, labels: Sequence[str]) -> dict[str, float]:
        """Returns the values since the last reset by name; of a metric with a value for each label, NAME/LABEL.

        A collective call: every process must make it.
        """
        values: dict[str, float] = {}
        for name, metric in zip(self.names, self.metrics, strict=True):
            values |= flat(name, metric.compute(), labels)  # type: ignore[operator]  # a list of metrics
        return values

    def check_names(self, taken: Mapping[str, float]) -> None:
        """Raises InputError for a name that the module itself logs."""
        if double := sorted(taken.keys() & set(self.names)):
            message = f"{KEY}: the module logs {double[0]} itself; leave it out, or give it another name"
            raise InputError(message, key=f"{KEY}.{double[0]}")


def flat(name: str, value: object, labels: Sequence[str]) -> dict[str, float]:
    """Returns what a metric computed as numbers by name; raises InputError for a table, such as a confusion matrix."""
    if isinstance(value, Mapping):
        return {key: number for inner, one in value.items() for key, number in flat(f"{name}_{inner}", one, labels).items()}
    if not isinstance(value, Tensor) or value.numel() == 1:
        return {name: float(value)}  # type: ignore[arg-type]  # a tensor or a number
    if value.ndim != 1:
        raise InputError(
            f"{KEY}.{name} computes a table of shape {tuple(value.shape)}, which is no number to log; choose another metric",
            key=KEY,
        )
    places = labels if len(labels) == len(value) else range(len(value))
    return {f"{name}/{place}": float(number) for place, number in zip(places, value, strict=True)}


def snake_case(metric: type) -> str:
    """Returns the name of a class in lower case, with _ between its words: `cohen_kappa` of CohenKappa."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", metric.__name__).lower()
