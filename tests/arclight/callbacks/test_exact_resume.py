"""What `ExactResume` saves beside Lightning's checkpoint. Whole runs: tests/arclight/testing/test_any_module.py."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from arclight.callbacks.exact_resume import flags_of, load_metric_states, metric_states, rescale, set_flags


class WithMetrics(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()
        self.both = MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)])
        self.unused = MeanMetric()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def see(self, step: int) -> None:
        self.mean.update(float(step), weight=step + 1)
        drawn = torch.Generator().manual_seed(step)
        self.both.update(torch.rand(8, 3, generator=drawn), torch.randint(0, 3, (8,), generator=drawn))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_metrics_continue_where_they_stopped(stop: int) -> None:
    whole, stopped, resumed = WithMetrics(), WithMetrics(), WithMetrics()
    for step in range(4):
        whole.see(step)
    for step in range(stop):
        stopped.see(step)
    saved = metric_states(stopped)
    assert "unused" not in saved
    load_metric_states(resumed, saved)
    for step in range(stop, 4):
        resumed.see(step)
    assert torch.equal(resumed.mean.compute(), whole.mean.compute())
    assert {name: float(value) for name, value in resumed.both.compute().items()} == {
        name: float(value) for name, value in whole.both.compute().items()
    }


def test_frozen_layers_and_modes_are_restored() -> None:
    saved, fresh = WithMetrics(), WithMetrics()
    saved.layers[0].requires_grad_(False)
    saved.layers[1].track_running_stats = False
    saved.layers[1].eval()
    set_flags(fresh, flags_of(saved))
    assert flags_of(fresh) == flags_of(saved)
    assert [parameter.requires_grad for parameter in fresh.layers.parameters()] == [False, False, True, True]


@pytest.mark.parametrize(("before", "now", "done"), [(1, 4, 24), (4, 1, 6), (2, 3, 9)])
def test_progress_is_counted_in_the_new_micro_batches(before: int, now: int, done: int) -> None:
    processed = {1: 6, 4: 24, 2: 6}[before]
    current = {"ready": processed, "started": processed, "processed": processed, "completed": processed - 1}
    total = {key: value + 10 * before for key, value in current.items()}
    progress = {"current": current, "total": total}
    rescale(progress, before, now)
    assert progress["current"] == {"ready": done, "started": done, "processed": done, "completed": done - 1}
    assert progress["total"]["processed"] == done + 10 * now
