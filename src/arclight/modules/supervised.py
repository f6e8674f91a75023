"""LightningModules to inherit from: a net with a loss, an optimizer and a scheduler, and a classifier of any kind above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from arclight.config.instantiate import find_target
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX, DataInfo, Monitor, PreflightContext
from arclight.metrics.predictions import PredictionCollector, Predictions
from arclight.metrics.records import ClassPrediction, Prediction
from arclight.metrics.tables import Table
from arclight.modules.compiled_loss import CompiledLoss
from arclight.modules.configured_loss import ConfiguredLoss, LossFunction, loss_errors
from arclight.modules.configured_metrics import ConfiguredMetrics, Metrics
from arclight.optim.freezing import freeze_parameters
from arclight.optim.param_groups import LrRule, MakeOptimizer, check_layer_decay, configure, lr_factor, read_rates
from arclight.optim.schedulers import Scheduler


@dataclass(frozen=True)
class Scores:
    """Results of a pass over a split."""

    metrics: dict[str, float]
    per_class: dict[str, float]  # F1 by class or entity type
    tables: tuple[Table, ...]
    labels: tuple[str, ...]  # of `counts`
    counts: list[list[int]]  # confusion matrix: rows true, columns predicted

    def to_plain(self) -> dict[str, Any]:
        """Returns the content of scores.json."""
        return {
            "tables": [asdict(table) for table in self.tables],
            "confusion": {"title": "Confusion", "labels": list(self.labels), "counts": self.counts},
        }


class SupervisedModule(LightningModule):
    """Trains a net on labelled data. A subclass defines `training_step`, which returns `training_loss`, and `update_metrics`.

    The loss of training and evaluation is the argument `loss`, or that method, to be overridden. Metrics are computed from
    sums over all samples and processes, never from means over batches. `scores` are those of the last pass over a split.

    Args:
        data_info: metadata of the data.
        net: tensors in, logits out.
        make_optimizer: called with the parameter groups.
        scheduler: of the learning rate.
        loss: called with logits (N, labels) and labels (N,), see `ConfiguredLoss`; None is cross entropy.
        metrics: of torchmetrics, a list or by name, updated with logits and labels of validation and test and logged beside
            those of the module, see `ConfiguredMetrics`.
        freeze: patterns such as `layers.0.*` of the names of the net's parameters that are not trained. The statistics of
            frozen batch norms still follow the data.
        label_smoothing: fraction of each target spread over all labels in training, 0 or more and below 1; of cross entropy.
        layer_decay: factor on the learning rate from each layer of the net to the one below; 1 is none.
        lr_rule: how the learning rate is scaled with the global batch: "none", "linear" or "sqrt" of its quotient by
            `lr_batch_size`.
        lr_batch_size: the global batch that the optimizer's learning rate was chosen for; required by "linear" and "sqrt".

    Raises:
        InputError: when `label_smoothing` is out of range or `lr_batch_size` is missing, for a loss or metric that cannot be
            used, or a pattern that matches no parameter.
    """

    info_type: ClassVar[type[DataInfo]]  # the kind of data that it learns from
    monitor: ClassVar[Monitor] = Monitor("val/loss", "min")
    reduction: ClassVar[Literal["mean", "sum"]] = "mean"  # of the losses of a training batch

    def __init__(
        self,
        data_info: DataInfo,
        *,
        net: nn.Module,
        make_optimizer: MakeOptimizer,
        scheduler: Scheduler,
        loss: LossFunction | None = None,
        metrics: Metrics | None = None,
        freeze: Sequence[str] = (),
        label_smoothing: float = 0.0,
        layer_decay: float = 1.0,
        lr_rule: LrRule = "none",
        lr_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            message = f"module.label_smoothing={label_smoothing} must be 0 or more and below 1"
            raise InputError(message, key="module.label_smoothing")
        if loss is not None and label_smoothing:
            message = f"module.label_smoothing={label_smoothing} is of the default loss; give it to module.loss instead"
            raise InputError(message, key="module.label_smoothing")
        if loss is not None and type(self).loss is not SupervisedModule.loss:
            message = f"module.loss has no effect: {type(self).__name__} has a loss of its own, its method `loss`"
            raise InputError(message, key="module.loss")
        lr_factor(lr_rule, 1, lr_batch_size)  # raises before anything is trained
        freeze_parameters(net, freeze)
        self.data_info = data_info
        self.net = net
        self.make_optimizer = make_optimizer
        self.scheduler = scheduler
        self.configured_loss = None if loss is None else ConfiguredLoss(loss)
        self.configured_metrics = ConfiguredMetrics(metrics)
        self.label_smoothing = label_smoothing
        self.layer_decay = layer_decay
        self.lr_rule: LrRule = lr_rule
        self.lr_batch_size = lr_batch_size
        # No check for nan in each batch: on a GPU the host would wait for it. Two sums, because MeanMetric of torchmetrics 1.9
        # drops its weights without that check.
        self.loss_sum = SumMetric(nan_strategy="disable")
        self.num_losses = SumMetric(nan_strategy="disable")
        self.scores: Scores | None = None
        self.compiled: CompiledLoss | None = None

    @classmethod
    def preflight(cls, settings: Mapping[str, Any], context: PreflightContext) -> Iterator[InputError]:
        """Yields an error for settings that the net or the hardware plan rules out."""
        yield from loss_errors(settings)
        try:
            check_layer_decay(settings.get("layer_decay", 1.0), find_target(context.config["model"]["_target_"], "model"))
        except InputError as error:
            yield error
        if "channels_last" in settings:
            message = "module.channels_last is set by the hardware plan; set hardware.channels_last instead"
            yield InputError(message, key="module.channels_last")

    def loss(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        """Returns the "mean" or "sum" of the losses of logits (N, labels) at labels (N,), those at IGNORE_INDEX left out."""
        if self.configured_loss is not None:
            loss: Tensor = self.configured_loss(logits, labels, reduction)
            return loss
        smoothing = self.label_smoothing if self.training else 0.0
        return nn.functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=smoothing)

    def training_loss(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Returns the loss of the net's output for these inputs; compiled if `compile_loss` was called."""
        return (self.compiled or self._eager_loss)(inputs, labels)

    def _eager_loss(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(self.net(*inputs).float().flatten(0, -2), labels.flatten(), self.reduction)

    def compile_loss(self, mode: str) -> None:
        """Compiles net and loss as one function, for training only: its batches have few shapes. Weights keep their names."""
        self.compiled = CompiledLoss(self.net, self._eager_loss, mode)

    def update_metrics(self, batch: Any) -> None:
        """Adds an evaluated batch to the metrics; must call `update_loss`."""
        raise NotImplementedError

    def compute_metrics(self) -> Scores:
        """Returns the scores of all batches since the last reset."""
        return Scores({"loss": self.mean_loss()}, per_class={}, tables=(), labels=(), counts=[])

    def update_loss(self, logits: Tensor, labels: Tensor) -> None:
        """Adds the losses of logits (N, labels) at labels (N,) to the mean, and the batch to the metrics of the config."""
        self.loss_sum.update(self.loss(logits, labels, "sum"))
        self.num_losses.update((labels != IGNORE_INDEX).sum())
        self.configured_metrics.update(logits, labels)

    def mean_loss(self) -> float:
        """Returns the exact mean of the losses since the last reset; nan of none."""
        return float(self.loss_sum.compute() / self.num_losses.compute())

    def metric_names(self) -> list[str]:
        """Returns the names of what is logged; raises InputError if the config names a metric as the module does."""
        own = self.compute_metrics().metrics
        self.configured_metrics.check_names(own)
        return [*own, *self.configured_metrics.names]

    def configure_optimizers(self) -> Any:
        factor = lr_factor(self.lr_rule, self.trainer.datamodule.batch_size, self.lr_batch_size)  # type: ignore[attr-defined]
        configured = configure(self, self.net, self.make_optimizer, self.scheduler, layer_decay=self.layer_decay, factor=factor)
        configured["optimizer"].register_load_state_dict_post_hook(match_parameter_strides)
        return configured

    def learning_rate(self, batch_size: int) -> str:
        """Returns the initial learning rate for this global batch and where it comes from, for the run summary."""
        lr, _ = read_rates(self.make_optimizer)
        if self.lr_rule == "none":
            return f"{lr:g} (from config; not scaled with batch size)"
        factor = lr_factor(self.lr_rule, batch_size, self.lr_batch_size)
        return f"{lr * factor:g} ({lr:g} x {factor:g}, {self.lr_rule}: batch {batch_size}, chosen for {self.lr_batch_size})"

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if self.trainer.precision == "bf16-mixed" and gradient_clip_val:
            # Lightning refuses to clip for a fused optimizer under mixed precision because of a scaler that bf16 does not have
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or GradClipAlgorithmType.NORM)
            Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Any) -> None:
        self.update_metrics(batch)

    def test_step(self, batch: Any) -> None:
        self.update_metrics(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        scores = self.compute_metrics()
        self.configured_metrics.check_names(scores.metrics)
        configured = self.configured_metrics.compute(scores.labels)
        self.scores = replace(scores, metrics={**scores.metrics, **configured})
        self.log_dict({f"{split}/{name}": value for name, value in self.scores.metrics.items()})
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()


class ClassificationModule(SupervisedModule):
    """A classifier of any kind: adds a confusion matrix, and the predictions of the last test from all processes.

    A subclass calls `set_labels` in its constructor, and `self.confusion.update` and, if given, `collector.add` in
    `update_metrics`.
    """

    record_type: ClassVar[type[Prediction]] = ClassPrediction  # what the prediction of a test sample becomes

    def set_labels(self, labels: tuple[str, ...]) -> None:
        """Sets the names of the columns of the logits."""
        self.labels = labels
        self.confusion = MulticlassConfusionMatrix(len(labels), ignore_index=IGNORE_INDEX, validate_args=False)
        self.predictions: Predictions | None = None
        self._collector = PredictionCollector(labels, self.record_type)

    def update_metrics(self, batch: Any, collector: PredictionCollector | None = None) -> None:
        """Adds an evaluated batch to the metrics, and the prediction for each of its rows to `collector`."""
        raise NotImplementedError

    def test_step(self, batch: Any) -> None:
        self.update_metrics(batch, self._collector)

    def on_test_epoch_start(self) -> None:
        self._collector = PredictionCollector(self.labels, self.record_type)

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        limit = self.trainer.limit_test_batches
        is_whole = isinstance(limit, float) and limit == 1.0  # the number 1 is one batch
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.predictions = self._collector.gather(data.sizes["test"] if is_whole and data is not None else None)


def match_parameter_strides(optimizer: Optimizer) -> None:
    """Gives the optimizer's states the memory layout of their parameters.

    A fused update reads both in the order of memory and ignores strides; a sharded checkpoint loses the layout of channels-last
    filters.
    """
    for parameter, states in optimizer.state.items():
        for key, value in states.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                states[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
