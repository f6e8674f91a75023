"""Training with the net spread over the processes: `strategy=fsdp`."""

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
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Adam, Optimizer

from arclight.checkpoint.atomic_write import (
    LAST,
    NotWrittenError,
    count_bytes,
    digest,
    keep_earlier,
    take_the_place,
    write,
)
from arclight.checkpoint.sharded import Stored, commit, own_rows, read, take_apart
from arclight.checkpoint.single_file import warn_not_written
from arclight.distributed.signals import Interrupted
from arclight.modules.supervised import SupervisedModule

log = logging.getLogger(__name__)


class ShardedStrategy(ModelParallelStrategy):
    """Data parallel as ddp is, but each process keeps only its rows of every weight, gradient and optimizer state.

    The numbers are those of one process with the whole batch. Runs on GPUs (nccl) and CPUs (gloo), joins processes that are
    connected already, and takes a `Task` as it is: its net is spread here, its metrics stay whole.

    Args:
        timeout: how long a process waits for the others before it gives up.
        keep: how many of the last checkpoints stay.

    Source: Zhao et al. 2023, PyTorch FSDP; torch's `fully_shard`. Lightning 2.6.6's own FSDPStrategy refuses CPUs.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30), *, keep: int = 1) -> None:
        super().__init__(tensor_parallel_size=1, timeout=timeout)
        self._keep = keep

    @property
    def mesh(self) -> DeviceMesh:
        """All processes in a row."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """As the parent's, which wants a `configure_model` that spreads the net; weight averaging warns of any that has one."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)  # in place
        for net in self._nets():
            shard(net, self.mesh)
            # right for layers whose output a net changes in place; no task changes the logits so
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
        """Leaves the fused update to Adam and AdamW: torch 2.13 has it for no other optimizer whose weights are spread."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if group.get("fused") and not isinstance(optimizer, Adam):  # AdamW is an Adam
                    group["fused"] = None

    def on_validation_start(self) -> None:
        self._share_buffers()

    def on_test_start(self) -> None:
        self._share_buffers()

    def _share_buffers(self) -> None:
        """Gives every process the first one's buffers, such as the means that batch norm has seen, as ddp does."""
        for net in self._nets():
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _nets(self) -> list[nn.Module]:
        """The net, and the average of its weights over the steps where a callback keeps one."""
        module = self.lightning_module
        assert isinstance(module, SupervisedModule)
        callbacks = module.trainer.callbacks  # type: ignore[attr-defined]
        averages = [callback._average_model for callback in callbacks if isinstance(callback, WeightAveraging)]
        return [module.net, *(average.get_submodule("module.net") for average in averages if average is not None)]

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
        if not self._fails:
            super().barrier(name)

    @property
    def _fails(self) -> bool:
        """Whether this process is on its way out, so that what it would wait for may never come."""
        trainer = None if self.lightning_module is None else self.lightning_module._trainer
        interrupted = trainer is not None and trainer.state.status == TrainerStatus.INTERRUPTED
        # a signal ends all processes after the same step
        return interrupted and not isinstance(sys.exception(), Interrupted)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        if self._fails:
            log.warning("no checkpoint of the moment of the failure: it would need all processes; %s stays", filepath)
            return
        folder = Path(filepath)
        # a file of that name, by a strategy that the run began with, stays until the folder is whole
        build = folder.with_name(f"{folder.name}.part") if folder.is_file() else folder
        folder, build, save = self.broadcast((folder, build, secrets.token_hex(4)))
        rows: dict[str, Tensor] = {}
        contents = take_apart(checkpoint, rows)
        files, problem = self._write_parts(build, save, rows)
        if self.is_global_zero and not problem:
            try:
                self._commit(folder, build, contents, files)
            except NotWrittenError as error:
                problem = str(error)
        if problem := self.broadcast(problem):  # on one process or all: none has the new one then
            for part in build.glob(f"{save}-{self.global_rank:05}-*"):
                part.unlink()
            warn_not_written(folder, problem)

    def _write_parts(self, folder: Path, save: str, rows: dict[str, Tensor]) -> tuple[dict[str, str], str]:
        """Each process's rows in a file of its own; their names with their SHA-256, and what went wrong on any of them."""
        name = f"{save}-{self.global_rank:05}-of-{self.world_size:05}.safetensors"
        written, problem = "", ""
        try:
            write(folder / name, functools.partial(save_file, rows), num_bytes=count_bytes(rows))
            written = digest(folder / name)
        except NotWrittenError as error:
            problem = str(error)
        outcomes: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(outcomes, (name, written, problem))  # every part is there, too
        return {name: written for name, written, _ in outcomes}, next((told for _, _, told in outcomes if told), "")

    def _commit(self, folder: Path, build: Path, contents: dict[str, Any], files: dict[str, str]) -> None:
        if build != folder and folder.name == LAST:
            keep_earlier(folder, self._keep)
        commit(build, contents, files, keep=self._keep)
        if build != folder:
            take_the_place(build, folder)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """The contents, spread over the processes; always with weights only. Takes a file of another strategy, too.

        Raises:
            InputError: as `read`.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        assert self.lightning_module is not None
        if path.is_dir():
            fits = self.lightning_module.trainer.state.fn == TrainerFn.FITTING
            return read(path, take=self._take_own, leave_out=() if fits else ("optimizer_states",))
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(path, weights_only=True)
        own = self.lightning_module.state_dict()
        for key in checkpoint.keys() & {"state_dict", "current_model_state"}:
            checkpoint[key] = {name: self._spread(tensor, own.get(name)) for name, tensor in checkpoint[key].items()}
        for optimizer, saved in zip(self.optimizers, checkpoint.get("optimizer_states", ()), strict=False):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for number, state in saved["state"].items():
                saved["state"][number] = {key: self._spread(value, parameters[number]) for key, value in state.items()}
        return checkpoint

    def _take_own(self, stored: Stored, name: str, like: Tensor) -> Tensor:
        """The rows of this process of a tensor in a checkpoint folder."""
        start, stop = own_rows(len(like), self.global_rank, self.world_size)
        rows = stored.rows(name, like, start, stop).to(self.root_device)
        return DTensor.from_local(rows, self.mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride())

    def _spread(self, value: Any, like: Tensor | None) -> Any:
        """The rows of this process of a whole tensor where `like`, of the same shape, is spread; anything else as it is."""
        if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
            whole = value.to(self.root_device, memory_format=torch.contiguous_format)
            return distribute_tensor(whole, self.mesh, [Shard(0)], src_data_rank=None)
        return value


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Spreads the net over the processes, once: what stands in an nn.ModuleList layer by layer, the rest together.

    Only one such group is whole at a time, while it works. Between steps every process has its rows alone.
    """
    if isinstance(net, FSDPModule):
        return
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # rows of channels-last filters do not lie together
    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    for layers in reversed(lists):  # inner ones first
        for layer in layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(net, mesh=mesh, reshard_after_forward=True)
