"""Exact resume for any LightningModule and any loaders: order, random numbers, all of the state."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import DoublePrecision
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import Metric, MetricCollection

from arclight.callbacks.weight_averaging import resume_averaging
from arclight.data.exact_loader import ExactLoader
from arclight.data.loader_errors import unused_batch_size
from arclight.data.samplers import Shard
from arclight.data.seeding import seed_generators, step_seed
from arclight.data.skipping_loader import SkippingLoader
from arclight.distributed.collectives import gather_objects
from arclight.errors import InputError

EPOCH_START = 2**31  # in the place of the batch in a seed

log = logging.getLogger(__name__)


class ExactResume(Callback):
    """Puts loaders of the engine in the place of the user's, seeds every step, and completes the checkpoint.

    Lightning 2.6.6 leaves out the states of metrics, its means over an unfinished epoch, the metrics that schedulers and
    callbacks monitor, and the steps of what validation logs for each batch. It counts progress in micro-batches, and repeats or
    skips work after some kinds of stop.

    Args:
        seed: of the run.
        batch_size: samples in a global batch; None where only the loaders know.
    """

    def __init__(self, seed: int, batch_size: int | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.batch_size = batch_size
        self.notes: list[str] = []  # what cannot be exact, for the run summary
        self._saved: dict[str, Any] = {}  # of the checkpoint that is resumed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(trainer.precision_plugin, DoublePrecision):  # else Lightning loads float64 weights as float32
            trainer.precision_plugin.convert_module(pl_module)
        process_loader = trainer.strategy.process_dataloader
        if not isinstance(process_loader, functools.partial):
            trainer.strategy.process_dataloader = functools.partial(self._process, trainer, process_loader)  # type: ignore[method-assign]
            pre_backward = trainer.precision_plugin.pre_backward
            trainer.precision_plugin.pre_backward = functools.partial(self._weigh, trainer, pre_backward)  # type: ignore[method-assign]
            # else Lightning 2.6.6 re-enters an epoch that has ended, if the end is given in steps
            trainer.fit_loop._iteration_based_training = never  # type: ignore[method-assign]
        fit = trainer.fit_loop.epoch_loop
        for loop in (fit, fit.val_loop, trainer.validate_loop, trainer.test_loop):
            loop._results.__class__ = EpochResults
            loop._results.is_shared = trainer.world_size > 1  # type: ignore[attr-defined]

    def _process(self, trainer: Trainer, process_loader: Any, loader: Any) -> Any:
        """Returns the loader that a process iterates over, in place of the user's."""
        is_train = bool(trainer.training)
        if isinstance(loader, DataLoader) and is_map_style(loader):
            if is_train and self.batch_size and trainer.is_global_zero:
                steps = trainer.accumulate_grad_batches
                note = unused_batch_size(loader, self.batch_size, trainer.world_size, steps)
                if note and note not in self.notes:
                    self.notes.append(note)
                    log.warning(note)
            loader = ExactLoader(
                loader,
                seed=self.seed,
                shard=Shard(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches),
                batch_size=self.batch_size if is_train else None,
                is_train=is_train,
                is_fixed=bool(trainer.overfit_batches),  # type: ignore[attr-defined]  # set outside __init__
                device=trainer.strategy.root_device,
            )
        elif not hasattr(getattr(loader, "sampler", None), "consume"):  # the toolkits' loaders have samplers of ours
            loader = SkippingLoader(
                loader,
                seed=self.seed,
                rank=trainer.global_rank,
                is_train=is_train,
                num_ahead=lambda: len(getattr(trainer.fit_loop._data_fetcher, "batches", ())),
                device=trainer.strategy.root_device,
            )
        if is_train:
            loader.sampler.set_epoch(epochs_done(trainer))  # Lightning may fetch before it does so
        return process_loader(loader)

    def _weigh(self, trainer: Trainer, pre_backward: Any, loss: Tensor, module: Any) -> Tensor:
        """Weighs the loss of an incomplete batch's unequal parts, so that their mean is that of the batch."""
        factors = {loader.loss_factor for loader in train_loaders(trainer) if isinstance(loader, ExactLoader)}
        if len(factors) == 1 and (factor := factors.pop()) != 1.0:
            loss = loss * factor
        weighed: Tensor = pre_backward(loss, module)
        return weighed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not any(optimizer.param_groups for optimizer in trainer.optimizers):  # Lightning puts an empty one there
            name = type(pl_module).__name__
            raise InputError(f"{name}.configure_optimizers returns no optimizer, so nothing would be trained; return one")
        # A module that reads `estimated_stepping_batches` sets up the loaders before their states are there, and Lightning then
        # drops these (https://github.com/Lightning-AI/pytorch-lightning/issues/20550).
        loop = trainer.fit_loop
        if loop._combined_loader is not None and loop._combined_loader_states_to_load:
            for loader in train_loaders(trainer):
                loader.sampler.set_epoch(epochs_done(trainer))
            loop._combined_loader._load_state_dicts(loop._combined_loader_states_to_load)
            loop._combined_loader_states_to_load = []
            if getattr(loop._data_fetcher, "batches", None):  # fetched ahead, from a loader without a length
                iter(loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(trainer, pl_module)
        trainer.fit_loop.epoch_loop._results.sums = {}  # type: ignore[attr-defined]  # those of an earlier epoch
        seed_generators(step_seed(self.seed, trainer.current_epoch, EPOCH_START, trainer.global_rank), pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._restore(trainer, pl_module)  # a run that resumes inside an epoch starts none
        for loader in train_loaders(trainer):
            if isinstance(loader, SkippingLoader):
                loader.is_used = True
        # seeds are set on the host, so the device is not waited for
        seed_generators(step_seed(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank), pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        return {}  # marks the checkpoint; the content comes with `on_save_checkpoint`, which gets the trainer

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counts in progress.values():  # of an epoch that is about to start: it has not
            counts["ready"] = counts["started"]
        if not is_inside_epoch(trainer):
            checkpoint["epoch"] = max(0, epochs_done(trainer) - 1)  # the one that has ended
        results = trainer.fit_loop.epoch_loop._results
        own = {"metrics": metric_states(pl_module), "sums": epoch_sums(results) if is_inside_epoch(trainer) else {}}
        checkpoint["exact_resume"] = {
            "accumulation_steps": trainer.accumulate_grad_batches,
            "monitored": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "flags": flags_of(pl_module),
            "validation_steps": dict(trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader),
            "by_rank": gather_objects(own),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint.get("exact_resume", {})
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and (state := checkpoint["callbacks"].get(callback.state_key)):
                callback.current_score = state.get("current_score")  # saved by Lightning, and not loaded
        before, now = self._saved.get("accumulation_steps"), trainer.accumulate_grad_batches
        if before not in (None, now):
            rescale(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], before, now)

    def _restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores metrics once, after the module's `on_train_start`, which may reset them."""
        saved, self._saved = self._saved, {}
        if not saved:
            return
        # else Lightning would leave out a scheduler's step at the end of this epoch, since it does not know the metrics
        trainer.fit_loop._restarting = False
        set_flags(pl_module, saved["flags"])
        # the steps under which values of single validation batches are logged
        trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader.update(saved.get("validation_steps", {}))
        resume_averaging(trainer, pl_module)
        for name, value in saved["monitored"].items():
            trainer._logger_connector._callback_metrics.setdefault(name, torch.as_tensor(value, device=pl_module.device))
        by_rank: list[dict[str, Any]] = saved["by_rank"]
        if len(by_rank) == trainer.world_size:
            load_metric_states(pl_module, by_rank[trainer.global_rank]["metrics"])
            trainer.fit_loop.epoch_loop._results.sums = by_rank[trainer.global_rank]["sums"]  # type: ignore[attr-defined]
        elif any(states["metrics"] or states["sums"] for states in by_rank):
            log.warning(
                "resumed with %d processes instead of %d: metrics of the unfinished epoch count from here on",
                trainer.world_size,
                len(by_rank),
            )


class EpochResults(_ResultCollection):
    """Lightning's values of `self.log`: those of an epoch are of all processes, and continue with `sums` after a resume.

    Without it, processes would go by different values wherever a module leaves out `sync_dist`.
    """

    is_shared = False
    sums: ClassVar[dict[str, dict[str, Tensor]]] = {}  # of the checkpoint's unfinished epoch, by Lightning's key

    def __setitem__(self, key: str, metric: Any) -> None:
        for state, before in self.sums.pop(key, {}).items():
            setattr(metric, state, before.clone())
        super().__setitem__(key, metric)

    def _get_cache(self, result_metric: Any, on_step: bool) -> Tensor | None:  # type: ignore[override]  # a static one
        sync = result_metric.meta.sync
        before = sync.should
        if self.is_shared and not on_step and result_metric.meta.on_epoch and not sync.rank_zero_only:
            sync.should = True
        try:
            return super()._get_cache(result_metric, on_step)
        finally:
            sync.should = before


def never() -> bool:
    """Returns False; not a lambda: strategies that spawn pickle the trainer."""
    return False


def is_map_style(loader: DataLoader[Any]) -> bool:
    """Returns whether the engine can supply the order of a loader: of a sized data set, iterated over by torch's own code."""
    if isinstance(loader.dataset, IterableDataset) or type(loader).__iter__ is not DataLoader.__iter__:
        return False
    items: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return hasattr(loader.dataset, "__len__") and hasattr(items, "__len__")


def train_loaders(trainer: Trainer) -> list[Any]:
    """Returns the loaders that this epoch trains on."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def epochs_done(trainer: Trainer) -> int:
    """Returns the number of complete epochs, which is the epoch of the loaders."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    done: int = progress.processed
    return done


def is_inside_epoch(trainer: Trainer) -> bool:
    """Returns whether batches of this epoch were trained on, but not all."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.started > progress.processed


def epoch_sums(results: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Returns what Lightning has added up for the means over an epoch, by its key of the logged value."""
    running = {
        key: metric for key, metric in results.items() if metric.is_tensor and metric.meta.on_epoch and not metric.has_reset
    }
    return {key: {state: getattr(metric, state).cpu() for state in metric._defaults} for key, metric in running.items()}


def metrics_of(module: LightningModule) -> Iterator[tuple[str, Metric]]:
    """Yields the metrics of torchmetrics in a module, by name."""
    for collection in module.modules():
        if isinstance(collection, MetricCollection):
            collection.values(copy_state=False)  # lets all metrics of a compute group refer to its states
    for name, metric in module.named_modules():
        if isinstance(metric, Metric):
            yield name, metric


def metric_states(module: LightningModule) -> dict[str, Any]:
    """Returns the states of the metrics that were updated since their last reset, as plain values."""
    return {
        name: {
            "num_updates": metric._update_count,
            "states": {state: to_cpu(getattr(metric, state)) for state in metric._defaults},
        }
        for name, metric in metrics_of(module)
        if metric._update_count
    }


def load_metric_states(module: LightningModule, saved: Mapping[str, Any]) -> None:
    """Loads what `metric_states` returned."""
    for name, metric in metrics_of(module):
        if name in saved:
            for state, value in saved[name]["states"].items():
                moved = [one.to(metric.device) for one in value] if isinstance(value, list) else value.to(metric.device)
                setattr(metric, state, moved)
            metric._update_count, metric._computed = saved[name]["num_updates"], None


def flags_of(module: LightningModule) -> dict[str, list[str]]:
    """Returns what callbacks that freeze layers change and no state dict holds."""
    return {
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "in_eval_mode": [name for name, inner in module.named_modules() if not inner.training],
        "untracked": [name for name, inner in module.named_modules() if getattr(inner, "track_running_stats", None) is False],
    }


def set_flags(module: LightningModule, flags: Mapping[str, list[str]]) -> None:
    """Sets what `flags_of` returned."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in flags["frozen"])
    for name, inner in module.named_modules():
        inner.training = name not in flags["in_eval_mode"]
        if hasattr(inner, "track_running_stats"):
            inner.track_running_stats = name not in flags["untracked"]


def to_cpu(state: Any) -> Any:
    """Returns a metric's state, a tensor or a list of them, on the CPU."""
    return [one.detach().cpu() for one in state] if isinstance(state, list) else state.detach().cpu()


def rescale(progress: dict[str, Any], before: int, now: int) -> None:
    """Counts Lightning's progress inside an epoch in micro-batches of another size; only complete steps are ever saved."""
    current, total = progress["current"], progress["total"]
    done = current["processed"] * now // before
    behind = current["processed"] - current["completed"]
    for counts, processed in ((current, done), (total, total["processed"] * now // before)):
        counts |= {"ready": processed, "started": processed, "processed": processed, "completed": processed - behind}
