"""Metrics by YAML: exact, named, and without the rows that only pad a batch."""

from __future__ import annotations

import pytest
import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix, MulticlassF1Score, MulticlassRecall

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.modules.configured_metrics import ConfiguredMetrics

LOGITS = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, IGNORE_INDEX, 0, 2, 1, 1, IGNORE_INDEX])
LABELLED = LABELS != IGNORE_INDEX


def computed(metrics: ConfiguredMetrics) -> dict[str, float]:
    for rows in torch.arange(9).split([1, 2, 1, 5]):  # the third has no label
        metrics.update(LOGITS[rows], LABELS[rows])
    return metrics.compute(("cat", "dog", "emu"))


def test_values_are_those_of_all_labelled_rows() -> None:
    values = computed(ConfiguredMetrics([MulticlassF1Score(3), MulticlassAUROC(3)]))
    expected = {"multiclass_f1_score": MulticlassF1Score(3), "multiclass_auroc": MulticlassAUROC(3)}
    assert values == {name: float(metric(LOGITS[LABELLED], LABELS[LABELLED])) for name, metric in expected.items()}


def test_a_value_for_each_class_has_its_name() -> None:
    values = computed(ConfiguredMetrics({"recall": MulticlassRecall(3, average=None)}))
    expected = MulticlassRecall(3, average=None)(LOGITS[LABELLED], LABELS[LABELLED])
    assert list(values) == ["recall/cat", "recall/dog", "recall/emu"]
    assert list(values.values()) == expected.tolist()


class Both(Metric):
    """Returns two numbers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.total += logits.sum()

    def compute(self) -> dict[str, torch.Tensor]:
        return {"once": self.total, "twice": 2 * self.total}


def test_numbers_by_name_are_logged_by_name() -> None:
    assert list(computed(ConfiguredMetrics({"sum": Both()}))) == ["sum_once", "sum_twice"]


def test_wrong_metrics_are_refused() -> None:
    with pytest.raises(InputError, match="module.metrics: f1 is a str, not a torchmetrics.Metric"):
        ConfiguredMetrics({"f1": "f1"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="module.metrics lists mean_metric twice; give each a name of its own"):
        ConfiguredMetrics([MeanMetric(), MeanMetric()])
    with pytest.raises(InputError, match="the name 'a/b' must consist of letters"):
        ConfiguredMetrics({"a/b": MeanMetric()})
    with pytest.raises(InputError, match="module.metrics.table computes a table of shape \\(3, 3\\)"):
        computed(ConfiguredMetrics({"table": MulticlassConfusionMatrix(3)}))
    with pytest.raises(InputError, match="module.metrics: the module logs accuracy itself"):
        ConfiguredMetrics({"accuracy": MeanMetric()}).check_names({"loss": 0.0, "accuracy": 0.0})
