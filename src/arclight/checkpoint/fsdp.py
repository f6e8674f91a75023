"""Sharded data-parallel training: `strategy=fsdp`."""

from __future__ import annotations

import functools
import logging
import secrets
import sys
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Adam, Optimizer

from arclight.checkpoint.atomic_write import LAST, NotWrittenError, count_bytes, keep_previous, replace, sha256, write
from arclight.checkpoint.plain import make_plain
from arclight.checkpoint.sharded import ShardedReader, load_sharded, rows_of_rank, split_local_rows, write_contents
from arclight.checkpoint.single_file import handle_not_written
from arclight.distributed.signals import Interrupted
from arclight.errors import InputError

log = logging.getLogger(__name__)


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel: each process keeps only its rows of every weight, gradient and optimizer state.

    Same results as one process with the whole batch. Joins an existing process group. Takes any LightningModule whose
    parameters are in submodules that `training_step` calls through `forward`; metrics stay whole. Experimental on GPUs (nccl),
    where it has never run; tested on CPUs (gloo). `timeout` is that of collective operations, `keep` the number of last
    checkpoints.

    Source: Zhao et al. 2023, PyTorch FSDP; torch's `fully_shard`. Lightning 2.6.6's own FSDPStrategy refuses CPUs.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30), *, keep: int = 1) -> None:
        super().__init__(tensor_parallel_size=1, timeout=timeout)
        self._keep = keep

    @property
    def mesh(self) -> DeviceMesh:
        """The one-dimensional mesh of all processes."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Replaces the parent's, which needs a `configure_model` that shards the net; WeightAveraging warns of that hook."""
        assert self.accelerator is not None
        assert self.model is not None
        if any(isinstance(callback, StochasticWeightAveraging) for callback in getattr(trainer, "callbacks", ())):
            raise InputError(
                "strategy=fsdp: StochasticWeightAveraging cannot average sharded weights; take strategy=ddp, or "
                "callbacks=weight_averaging",
                key="strategy",
            )
        self.accelerator.setup(trainer)
        if direct := [name for name, _ in self.model.named_parameters(recurse=False)]:
            name = f"{type(self.model).__name__}.{direct[0]}"
            raise InputError(f"strategy=fsdp: put {name} into a submodule, or take strategy=ddp")
        self.precision_plugin.convert_module(self.model)  # in place
        for net in self._nets():
            shard(net, self.mesh)
            # matters for layers whose output is changed in place, which a loss does not do to logits
            warnings.filterwarnings("ignore", message=rf"FSDP2-wrapped module \({type(net).__name__}\) returned a view")
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING:
            _optimizers_to_device(self.optimizers, self.root_device)

    def setup_optimizers(self, trainer: Trainer) -> None:
        super().setup_optimizers(trainer)
        self._unfuse()

    def _unfuse(self) -> None:
        """Turns fused updates off but for Adam and AdamW: torch 2.13 has no others for sharded weights."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if group.get("fused") and not isinstance(optimizer, Adam):  # AdamW is an Adam
                    group["fused"] = None

    def on_validation_start(self) -> None:
        """Broadcasts the buffers of rank 0, such as the running means of batch norm, as ddp does."""
        for net in self._nets():
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, src=0)

    on_test_start = on_validation_start

    def _nets(self) -> list[nn.Module]:
        """Returns the submodules with parameters of the LightningModule, and of its weight average if a callback keeps one."""
        module = self.lightning_module
        assert module is not None
        callbacks = module.trainer.callbacks  # type: ignore[attr-defined]
        averages = [callback._average_model for callback in callbacks if isinstance(callback, WeightAveraging)]
        roots = [module, *(average.module for average in averages if average is not None)]
        return [net for root in roots for net in root.children() if any(True for _ in net.parameters())]

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        _optimizers_to_device(self.optimizers, self.root_device)
        self._unfuse()

    def barrier(self, name: str | None = None) -> None:
        if not self._is_failing:
            super().barrier(name)

    @property
    def _is_failing(self) -> bool:
        """Whether this process is stopping on an error, so that the others may never reach a barrier."""
        trainer = None if self.lightning_module is None else self.lightning_module._trainer
        interrupted = trainer is not None and trainer.state.status == TrainerStatus.INTERRUPTED
        # a signal stops all processes after the same step
        return interrupted and not isinstance(sys.exception(), Interrupted)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        if self._is_failing:
            log.warning("not saved after an error, which would need all processes: %s stays", filepath)
            return
        path = Path(filepath)
        # a single-file checkpoint of this name stays until the directory is complete
        target = path.with_name(f"{path.name}.part") if path.is_file() else path
        path, target, prefix = self.broadcast((path, target, secrets.token_hex(4)))
        contents, rows = split_local_rows(make_plain(checkpoint))
        files, problem = self._write_rows(target, prefix, rows)
        if self.is_global_zero and not problem:
            try:
                if target != path and path.name == LAST:
                    keep_previous(path, self._keep)
                write_contents(target, contents, files, keep=self._keep)
                if target != path:
                    replace(path, target)
            except NotWrittenError as error:
                problem = str(error)
        if problem := self.broadcast(problem):  # then no process keeps its file
            for file in target.glob(f"{prefix}-{self.global_rank:05}-*"):
                file.unlink()
            handle_not_written(path, problem)

    def _write_rows(self, directory: Path, prefix: str, rows: dict[str, Tensor]) -> tuple[dict[str, str], str]:
        """Writes this process's rows; returns the SHA-256 of all processes' files by name, and the first problem of any."""
        name = f"{prefix}-{self.global_rank:05}-of-{self.world_size:05}.safetensors"
        checksum, problem = "", ""
        try:
            write(directory / name, functools.partial(save_file, rows), num_bytes=count_bytes(rows))
            checksum = sha256(directory / name)
        except NotWrittenError as error:
            problem = str(error)
        outcomes: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(outcomes, (name, checksum, problem))  # also a barrier
        problems = [outcome[2] for outcome in outcomes if outcome[2]]
        return {name: checksum for name, checksum, _ in outcomes}, problems[0] if problems else ""

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Returns the contents with this process's rows, from single-file checkpoints, too; raises InputError if damaged."""
        path = Path(self.broadcast(str(checkpoint_path)))
        assert self.lightning_module is not None
        if path.is_dir():
            is_fitting = self.lightning_module.trainer.state.fn == TrainerFn.FITTING
            return load_sharded(path, load_tensor=self._load_rows, skip=() if is_fitting else ("optimizer_states",))
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(path, weights_only=True)
        own = self.lightning_module.state_dict()
        for key in checkpoint.keys() & {"state_dict", "current_model_state"}:
            checkpoint[key] = {name: self._distribute(tensor, own.get(name)) for name, tensor in checkpoint[key].items()}
        for optimizer, saved in zip(self.optimizers, checkpoint.get("optimizer_states", ()), strict=False):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for number, state in saved["state"].items():
                saved["state"][number] = {key: self._distribute(value, parameters[number]) for key, value in state.items()}
        return checkpoint

    def _load_rows(self, reader: ShardedReader, name: str, like: Tensor) -> Tensor:
        """Returns this process's rows of a tensor in a sharded checkpoint."""
        rows = reader.rows(name, like, *rows_of_rank(len(like), self.global_rank, self.world_size)).to(self.root_device)
        return DTensor.from_local(rows, self.mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride())

    def _distribute(self, value: Any, like: Tensor | None) -> Any:
        """Returns this process's rows of a whole tensor where `like` is sharded and has its shape, else the value."""
        if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
            whole = value.to(self.root_device, memory_format=torch.contiguous_format)
            return distribute_tensor(whole, self.mesh, [Shard(0)], src_data_rank=None)
        return value


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Shards the net once: the layers of each nn.ModuleList one by one, the rest together. One such group is whole at once."""
    if any(isinstance(module, FSDPModule) for module in net.modules()):
        return
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # rows of channels-last filters are not contiguous
    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    for layers in reversed(lists):  # inner ones first
        for layer in layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    if not isinstance(net, nn.ModuleList):  # which has no forward
        fully_shard(net, mesh=mesh, reshard_after_forward=True)
