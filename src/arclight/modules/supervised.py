"""What both tasks share: counting over a split, the scores that come of it, the metric that decides."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from arclight.data.samplers import DROPOUT, derive_seed
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX, DataInfo, Monitor
from arclight.metrics.predictions import PredictionCollector, Predictions
from arclight.metrics.records import ClassPrediction, Prediction
from arclight.metrics.tables import Table
from arclight.modules.compiled_loss import CompiledLoss
from arclight.optim.param_groups import LrRule, LRSchedule, MakeOptimizer, configure, lr_factor, read_rates


@dataclass(frozen=True)
class Scores:
    """What a pass over a split found.

    `numbers` are single scores by name, `per_class` F1 by class or entity type, `counts` the confusion of `labels` (rows true,
    columns predicted).
    """

    numbers: dict[str, float]
    per_class: dict[str, float]
    tables: tuple[Table, ...]
    labels: tuple[str, ...]
    counts: list[list[int]]

    def to_plain(self) -> dict[str, Any]:
        """As scores.json holds it."""
        return {
            "tables": [table.to_plain() for table in self.tables],
            "confusion": {"title": "Confusion", "labels": list(self.labels), "counts": self.counts},
        }


class SupervisedModule(LightningModule):
    """A net in training. A subclass says how a batch becomes a loss, what is counted, and which scores the counts give.

    Scores come of sums over all samples and processes, never of means over batches. `scores` are those of the last pass,
    `predictions` those of the last test, of all processes; `compiled` is the loss once `compile_loss` was called.

    Args:
        data_info: the data's facts.
        net: tensors in, logits out.
        labels: what each column of the logits stands for.
        make_optimizer: wants the parameter groups.
        scheduler: (step, total_steps) -> factor on the learning rate.
        label_smoothing: share of each target spread over all labels, 0 or more and below 1.
        layer_decay: factor on the learning rate from each layer of the net to the one below; 1 is none.
        lr_rule: how the learning rate follows the global batch: "none", "linear" or "sqrt" of its quotient by `lr_batch_size`.
        lr_batch_size: the global batch that the optimizer's learning rate was chosen for; every rule but "none" wants it.

    Raises:
        InputError: when `label_smoothing` is out of its range, or a rule lacks the batch that it starts from.
    """

    info_type: ClassVar[type[DataInfo]]  # the kind of data that it learns from
    monitor: ClassVar[Monitor]
    record_type: ClassVar[type[Prediction]] = ClassPrediction  # what the prediction of a test sample becomes
    reduction: ClassVar[Literal["mean", "sum"]] = "mean"  # of the losses of a batch

    def __init__(
        self,
        data_info: DataInfo,
        *,
        net: nn.Module,
        labels: tuple[str, ...],
        make_optimizer: MakeOptimizer,
        scheduler: LRSchedule,
        label_smoothing: float,
        layer_decay: float = 1.0,
        lr_rule: LrRule = "none",
        lr_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"module.label_smoothing={label_smoothing} must be 0 or more and below 1")
        lr_factor(lr_rule, 1, lr_batch_size)  # tells what is wrong with them before anything is trained
        self.data_info = data_info
        self.net = net
        self.make_optimizer = make_optimizer
        self.scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.layer_decay = layer_decay
        self.lr_rule: LrRule = lr_rule
        self.lr_batch_size = lr_batch_size
        # No look for nan in each batch: on a GPU it would make the host wait. Two sums, because MeanMetric of torchmetrics 1.9
        # drops its weights when it does not look.
        self.loss_sum = SumMetric(nan_strategy="disable")
        self.num_losses = SumMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(len(labels), ignore_index=IGNORE_INDEX, validate_args=False)
        self.scores: Scores | None = None
        self.predictions: Predictions | None = None
        self._collector = PredictionCollector(labels, self.record_type)
        self.compiled: CompiledLoss | None = None

    @abstractmethod
    def count(self, batch: Any, collector: PredictionCollector | None = None) -> None:
        """Adds a batch to the metrics, and what is predicted for each of its rows to `collector`."""

    @abstractmethod
    def score(self) -> Scores:
        """The scores of what has been counted."""

    def compile_loss(self, mode: str) -> None:
        """Makes one function of net and loss that torch.compile has made faster; weights keep their names.

        For training alone, whose batches have few shapes, often one; a split that is scored has many.
        """
        self.compiled = CompiledLoss(self.net, self.plain_loss, mode)

    def loss_of(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The loss of what the net makes of these inputs, in training."""
        return (self.compiled or self.plain_loss)(inputs, labels)

    def plain_loss(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The same, never compiled."""
        logits = self.net(*inputs).float().flatten(0, -2)
        return nn.functional.cross_entropy(
            logits, labels.flatten(), reduction=self.reduction, label_smoothing=self.label_smoothing
        )

    def configure_optimizers(self) -> Any:
        factor = lr_factor(self.lr_rule, self.trainer.datamodule.batch_size, self.lr_batch_size)  # type: ignore[attr-defined]
        configured = configure(self, self.net, self.make_optimizer, self.scheduler, layer_decay=self.layer_decay, factor=factor)
        configured["optimizer"].register_load_state_dict_post_hook(lay_out_like_parameters)
        return configured

    def learning_rate(self, batch_size: int) -> str:
        """The learning rate at which training with this global batch starts from, and how it came about, in words."""
        lr, _ = read_rates(self.make_optimizer)
        if self.lr_rule == "none":
            return f"{lr:g} (as you said; no rule for the batch)"
        factor = lr_factor(self.lr_rule, batch_size, self.lr_batch_size)
        return f"{lr * factor:g} ({lr:g} x {factor:g}, {self.lr_rule}: batch {batch_size}, chosen for {self.lr_batch_size})"

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        plugin = self.trainer.precision_plugin
        if self.trainer.precision == "bf16-mixed" and gradient_clip_val:
            # Lightning refuses to clip for a fused optimizer under mixed precision, for the sake of a scaler that bf16 has not
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or GradClipAlgorithmType.NORM)
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # What dropout draws is a function of seed, epoch, part and process, not of what was drawn before: a run that goes on
        # draws what it would have drawn. Seeds are set on the host, so the device is not waited for.
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        seed = derive_seed((data.seed, self.trainer.current_epoch, batch_idx, DROPOUT, self.trainer.global_rank))
        # not torch.manual_seed: it writes down a whole stack trace for every kind of device that is not in use
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def validation_step(self, batch: Any) -> None:
        self.count(batch)

    def test_step(self, batch: Any) -> None:
        self.count(batch, self._collector)

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_start(self) -> None:
        self._collector = PredictionCollector(self._collector.labels, self.record_type)

    def on_test_epoch_end(self) -> None:
        self._finish("test")
        limit = self.trainer.limit_test_batches
        is_whole = isinstance(limit, float) and limit == 1.0  # the number 1 is one batch
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.predictions = self._collector.gather(data.sizes["test"] if is_whole and data is not None else None)

    def count_losses(self, logits: Tensor, labels: Tensor) -> None:
        """Adds the losses of logits (N, labels) at labels (N,) to the mean, those at IGNORED left out."""
        self.loss_sum.update(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        self.num_losses.update((labels != IGNORE_INDEX).sum())

    def mean_loss(self) -> float:
        """The mean of the losses counted so far; nan of none."""
        return float(self.loss_sum.compute() / self.num_losses.compute())

    def _finish(self, split: str) -> None:
        self.scores = self.score()
        self.log_dict({f"{split}/{name}": value for name, value in self.scores.numbers.items()})
        for metric in self.children():
            if isinstance(metric, Metric):
                metric.reset()


def lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Lays the optimizer's states out in memory as the parameters that they belong to.

    A fused update reads both in the order of memory, without a look at the strides, and a checkpoint that was written in parts
    has lost the layout of channels-last filters.
    """
    for parameter, states in optimizer.state.items():
        for key, value in states.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                states[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
