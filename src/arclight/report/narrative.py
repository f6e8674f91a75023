"""Summarizes a run in one sentence by fixed rules: score, interval, time, and whether more training would help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from arclight.interfaces import direction
from arclight.report.page import format_duration, format_value

NAMES = {"f1": "F1", "accuracy": "accuracy", "loss": "loss"}
OVERFITTING = 1.02  # times the lowest validation loss; less is noise


class Epoch(NamedTuple):
    """Validation metrics at the end of an epoch, counted from 1, and its mean training loss.

    The loss is nan where none was logged, and infinite where one of them was not finite.
    """

    number: int
    metrics: dict[str, float]
    train_loss: float


def read_epochs(series: Mapping[str, Mapping[float, float]]) -> list[Epoch]:
    """Returns the validated epochs in the series of a metrics.csv; of several validations in one epoch, the last."""
    validated = {name: values for name, values in series.items() if name.startswith("val/")}
    steps = sorted({step for values in validated.values() for step in values})
    numbers = series.get("epoch", {})
    ends = {int(numbers[step]) + 1: step for step in steps if 0 <= numbers.get(step, math.nan) < 1e9}
    epochs: list[Epoch] = []
    before = -math.inf
    for number, step in sorted(ends.items()):
        end = step + 1  # Lightning counts steps from 0 where it validates, the training loss from 1
        losses = [loss for at, loss in series.get("train/loss", {}).items() if before < at <= end]
        mean = sum(losses) / len(losses) if losses else math.nan
        metrics = {name: values[step] for name, values in validated.items() if step in values}
        epochs.append(Epoch(number, metrics, mean if all(map(math.isfinite, losses)) else math.inf))
        before = end
    return epochs


def summarize_run(results: Mapping[str, Any], epochs: list[Epoch], interval: tuple[float, float] | None) -> str:
    """Returns the sentence; empty when nothing is known.

    Args:
        results: of results.json.
        epochs: the validated epochs.
        interval: 95 % interval of the main metric.
    """
    parts = [_score(results, interval), *_training_course(results, epochs)]
    sentence = "; ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def main_metric(results: Mapping[str, Any]) -> str | None:
    """Returns the key of the main metric: test before validation, F1 before accuracy, these before the monitored one."""
    monitored = str(results.get("monitor") or "").partition("/")[2]
    keys = [f"{split}/{metric}" for split in ("test", "val") for metric in ("f1", "accuracy")]
    keys += [f"{split}/{monitored}" for split in ("test", "val") if monitored]
    return next((key for key in keys if key in results), None)


def _score(results: Mapping[str, Any], interval: tuple[float, float] | None) -> str:
    key = main_metric(results)
    value = results.get(key or "")
    if key is None or not isinstance(value, int | float):
        return ""
    split, _, metric = key.partition("/")
    text = f"{'test' if split == 'test' else 'validation'} {NAMES.get(metric, metric)} {format_value(float(value))}"
    if interval is not None:
        text += f" (95 % interval {format_value(interval[0])} to {format_value(interval[1])})"
    num_epochs, time_s = results.get("epochs"), results.get("time/total_s")
    if isinstance(num_epochs, int) and not isinstance(num_epochs, bool):
        text += f" after {num_epochs} {'epoch' if num_epochs == 1 else 'epochs'}"
    if isinstance(time_s, int | float) and 0 <= time_s < 1e12:
        text += f" in {format_duration(time_s)}"
    return text


def _training_course(results: Mapping[str, Any], epochs: list[Epoch]) -> list[str]:
    """Returns the best epoch, and whether more training would help."""
    monitor = str(results.get("monitor", "val/loss"))
    losses = [(epoch.number, epoch.metrics["val/loss"]) for epoch in epochs if "val/loss" in epoch.metrics]
    if odd := [epoch.number for epoch in epochs if math.isinf(epoch.train_loss)]:
        return [f"training loss NaN or infinite since epoch {odd[0]}"]
    if odd := [number for number, loss in losses if not math.isfinite(loss)]:
        return [f"validation loss NaN or infinite since epoch {odd[0]}"]
    sign = -1 if direction(monitor, results) == "min" else 1
    values = [(epoch.number, sign * epoch.metrics[monitor]) for epoch in epochs if monitor in epoch.metrics]
    values = [(number, value) for number, value in values if math.isfinite(value)]
    if len(values) < 2:
        return []
    best, last = max(values, key=lambda pair: pair[1])[0], values[-1][0]
    parts = [f"best epoch {best} of {last} by {monitor}"]
    if (since := _overfitted_since(epochs, losses)) is not None:
        parts.append(f"overfitting since epoch {since} (training loss fell, validation loss rose)")
    elif best == last:
        parts.append("still improving at the end")
    else:
        parts.append(f"no improvement in the {last - best} {'epoch' if last - best == 1 else 'epochs'} after it")
    return parts


def _overfitted_since(epochs: list[Epoch], losses: list[tuple[int, float]]) -> int | None:
    """Returns the epoch after the lowest validation loss, if it rose over two or more later ones while training loss fell."""
    if len(losses) < 3:
        return None
    turn, lowest = min(losses, key=lambda pair: pair[1])
    train_loss = {epoch.number: epoch.train_loss for epoch in epochs}
    last, final = losses[-1]
    rose = last - turn >= 2 and lowest > 0 and final > OVERFITTING * lowest
    return turn + 1 if rose and train_loss[last] < train_loss[turn] else None
