"""Everything that a LightningModule, a LightningDataModule, a net or a batch may offer the engine. All of it is optional.

An offer is an attribute, a property or a method of that name: nothing has to be inherited or registered. The default works for
any module, any data and any batch.

Batch (offers are read by the functions of this page, never by `isinstance`)
    num_samples: int                   Samples in it. Default: the first dimension of its first tensor.
    unit_counts: Mapping[str, int]     Other units to report, padding left out: {"tokens": 812} becomes `train/tokens_per_s`.
    num_positions: int                 Places for these units, padding included: gives the fraction of padding.
    work_units: Mapping[str, int]      What the FLOPs of a step are proportional to. Default: {"samples": num_samples}.
    flops_per_unit(measure)            FLOPs for each work unit, where `measure(batch)` returns those of a training step on any
                                       batch; needed with work_units. Default: {"samples": measure(batch) / num_samples}.
    example_inputs: tuple              What `forward` of the module takes. Default: the batch, or its first element.

Net (torch.nn.Module)
    depth(name), num_layers            The layer of a parameter, 0 the lowest, for `module.layer_decay`.
    blueprint: Mapping[str, Any]       Overrides of its config with which it is rebuilt from a checkpoint.
    pretrained_bytes(settings)         Class method: size of the pretrained weights on this machine, 0 for those to download,
                                       None for none; preflight checks that the disk has space for their checkpoints.

LightningModule
    monitor: Monitor or str            The metric for the best checkpoint, early stopping and sweeps; `monitor` and
                                       `monitor_mode` of the config come first. Default: none, the last checkpoint counts.
    info_type: type[DataInfo]          The kind of data that it learns from: other data is refused before anything is loaded.
    data_info: DataInfo                What it was built from, saved in every checkpoint.
    scores, predictions                Results of the last test: tables for the report, predictions.jsonl.
    compile_loss(mode)                 Compiles net and loss together, for `hardware.compile`.
    predict_forward(*inputs)           What prediction calls in place of `forward`, with the same arguments.
    input_pipeline()                   See "Class of data info"; comes before that of the data info.
    learning_rate(batch_size) -> str   The learning rate after the rule for the batch size, for the run summary.

LightningDataModule
    data_info: DataInfo                Metadata that the net is built from, once `setup("fit")` was called.
    info_type: type[DataInfo]          The class of it.
    has_fixed_shapes(settings) -> bool Class method: whether all batches have one shape under these `data` settings, for
                                       hardware.cudnn_benchmark and hardware.compile. Default: False.
    batch_size, seed, steps_per_epoch  Global batch size, seed of shuffling, optimizer steps of an epoch.
    sizes: Mapping[str, int]           Samples of each loaded split.
    fingerprint() -> str or None       A hash of the training data, without which a run resumes on any data of equal size.
                                       Default: of three samples of a map-style data set.
    previews(split, rows)              Previews of samples for the report, as plain data.
    sample_fields(split, rows)         Fields, as plain data, that predictions.jsonl gets for each sample, such as its file.
    perturbations, perturb(kind, strength)
                                       Kinds of damage to samples, each with its strengths; validation and test loaders then
                                       yield damaged samples, until `perturb(None)`. For `evaluate --robustness`.
    dataset_summary()                  Statistics of the splits for the report, as plain data.

Class of a data module, net, LightningModule, optimizer or callback
    preflight(settings, context)       Class method: yields what is wrong with its settings (`_target_` and its arguments), each
                                       an `InputError` or its message, before anything is loaded. Types, unknown and missing
                                       arguments are checked already, by the signature. `context` is a `PreflightContext`.

Class of data info
    content: str                       What it describes, in words for messages: "images".
    stand_in() -> DataInfo             Class method: made-up data info to try settings on before data is loaded. Nothing that
                                       real data allows may fail with it.
    input_pipeline()                   An `arclight.inference.pipeline.InputPipeline`: reads new items for a model built from
                                       this, and turns the model's outputs into records. Default: tensors in, tensors out, by
                                       the module's `example_input_array` and its `predict_step` or `forward`.
    export_program(module)             An `arclight.export.program.Program`: a module built from this with pre- and post-
                                       processing, tensors in and tensors out, for `export`. Default: the module's `forward` on
                                       its `example_input_array`, or on a batch of the data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "perplexity", "nll")  # in the name of a metric without a mode
# The label of rows, words and subwords that count in no loss and in no metric (the default `ignore_index` of cross_entropy).
IGNORE_INDEX = -100


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Metadata of a data set that models are built from: a frozen dataclass of plain values, saved in every checkpoint."""

    content: ClassVar[str] = "data"

    @classmethod
    def stand_in(cls) -> DataInfo | None:
        """Returns made-up data info to try settings on; None where there is none."""
        return None

    def describe(self) -> str:
        """Returns the data in a few words for the run summary, such as "3x32x32, 10 classes"; default: nothing."""
        return ""


@dataclass(frozen=True)
class PreflightContext:
    """What a class may look at when it checks its settings.

    `config` is the whole config; `data_info` the stand-in of the data that the module learns from, if there is one; `decisions`
    the hardware plan by name, empty where a requested setting is wrong.
    """

    config: Mapping[str, Any]
    data_info: DataInfo | None = None
    decisions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Monitor:
    """The logged metric that selects the best checkpoint, stops early and is optimized by sweeps."""

    metric: str
    mode: Literal["min", "max"]


def monitor_of(module: Any, settings: Mapping[str, Any] | None = None) -> Monitor | None:
    """Returns the monitor of a config, else that of a LightningModule or of its class; None where neither names one."""
    requested = (settings or {}).get("monitor")
    monitor = None if requested == "none" else requested or getattr(module, "monitor", None)
    mode = (settings or {}).get("monitor_mode")
    metric = monitor.metric if isinstance(monitor, Monitor) else monitor
    if (settings or {}).get("trainer", {}).get("limit_val_batches") == 0 and not str(metric).startswith("train"):
        return None  # there is no validation
    if isinstance(monitor, Monitor):
        return Monitor(monitor.metric, mode or monitor.mode)
    if not isinstance(monitor, str):
        return None
    own = getattr(module, "monitor_mode", None) if not requested else None
    return Monitor(monitor, mode or own or ("min" if is_loss(monitor) else "max"))


def is_loss(metric: str) -> bool:
    """Returns whether a metric without a mode is better when lower, by its name."""
    return any(word in metric.lower() for word in LOWER_IS_BETTER)


def direction(metric: str, results: Mapping[str, Any]) -> Literal["min", "max"] | None:
    """Returns the mode of a metric of results.json, the monitored one's or by its name; None where that says nothing."""
    name, monitored = metric.partition("/")[2], str(results.get("monitor") or "").partition("/")[2]
    if name == monitored:
        mode = results.get("monitor_mode")
        return mode if mode in ("min", "max") else "min" if is_loss(name) else "max"
    return "min" if is_loss(name) else "max" if name in ("f1", "accuracy") else None


def standard_name(split: str, name: str) -> str:
    """Returns the key in results.json of a metric that was logged in an evaluation: "val_acc" and "val/acc" are "val/acc".

    Metrics of training keep their names.
    """
    if name.startswith("train"):
        return name
    bare = name.removeprefix(f"{split}/").removeprefix(f"{split}_")
    return f"{split}/{bare}"


def is_of_one_class(key: str) -> bool:
    """Returns whether a key of results.json is the F1 of one class."""
    return key.startswith(("val/f1/", "test/f1/"))


def num_samples(batch: Any) -> int:
    """Returns the number of samples in a batch; 1 if it holds no tensor.

    Where the batch does not say: as Lightning's `extract_batch_size`, but without a warning for tensors of different lengths.
    """
    offered = getattr(batch, "num_samples", None)
    return offered if isinstance(offered, int) else next(lengths(batch), 1)


def lengths(batch: Any) -> Iterator[int]:
    """Yields the first dimension of each tensor in a nested batch."""
    if hasattr(batch, "shape"):
        yield batch.shape[0] if len(batch.shape) else 1
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from lengths(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from lengths(value)


def unit_counts(batch: Any) -> Mapping[str, int]:
    """Returns the counts of other units in a batch, by name."""
    return getattr(batch, "unit_counts", {})


def num_positions(batch: Any) -> int:
    """Returns the places for the units of a batch, padding included; 0 if unknown."""
    return getattr(batch, "num_positions", 0)


def work_units(batch: Any) -> Mapping[str, int]:
    """Returns what the FLOPs of a training step on this batch are proportional to, by name."""
    return cast(Mapping[str, int], getattr(batch, "work_units", None) or {"samples": num_samples(batch)})


def flops_per_unit(batch: Any, measure: Callable[[Any], float]) -> Mapping[str, float]:
    """Returns the FLOPs for each work unit of batches like this one; `measure` returns those of a training step on a batch."""
    offered = getattr(batch, "flops_per_unit", None)
    return offered(measure) if offered is not None else {"samples": measure(batch) / num_samples(batch)}


def example_inputs(batch: Any) -> tuple[Any, ...]:
    """Returns the positional arguments of the module's `forward` for this batch."""
    offered = getattr(batch, "example_inputs", None)
    if offered is not None:
        return tuple(offered)
    return (batch[0],) if isinstance(batch, list | tuple) else (batch,)


def training_step_args(module: Any, batch: Any) -> tuple[Any, ...]:
    """Returns the arguments of `training_step`, which may or may not take the number of the batch."""
    takes_index = len(inspect.signature(module.training_step).parameters) > 1
    return (batch, 0) if takes_index else (batch,)


def loss_in(output: Any) -> Any:
    """Returns the loss tensor that `training_step` returned, by itself or in a dict."""
    return output["loss"] if isinstance(output, Mapping) else output
