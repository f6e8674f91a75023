"""Which parts of a LightningModule are sharded; tests/project/engine/checkpoint/test_fsdp.py trains with two processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from arclight.checkpoint.fsdp import ShardedStrategy, shard
from arclight.errors import InputError


class OwnModule(LightningModule):
    """A module with two nets, one of them a list of layers, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.heads = nn.ModuleList([nn.Linear(3, 1)])
        self.register_buffer("mean", torch.zeros(2))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A mesh of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def strategy_of(module: LightningModule) -> ShardedStrategy:
    strategy = ShardedStrategy()
    strategy.accelerator = SimpleNamespace(setup=lambda trainer: None)  # type: ignore[assignment]
    strategy._lightning_module = strategy.model = module
    module._trainer = SimpleNamespace(callbacks=[])  # type: ignore[assignment]
    return strategy


def test_all_submodules_with_parameters_are_sharded(mesh: DeviceMesh) -> None:
    module = OwnModule()
    nets = strategy_of(module)._nets()
    assert nets == [module.encoder, module.heads]
    for _ in range(2):  # training, then testing
        for net in nets:
            shard(net, mesh)
    assert isinstance(module.encoder, FSDPModule)
    assert isinstance(module.heads[0], FSDPModule)


def test_parameters_outside_submodules_are_reported() -> None:
    module = OwnModule()
    module.scale = nn.Parameter(torch.ones(1))
    trainer: Any = None
    with pytest.raises(InputError, match=r"strategy=fsdp: put OwnModule\.scale into a submodule, or take strategy=ddp"):
        strategy_of(module).setup(trainer)


def test_stochastic_weight_averaging_of_sharded_weights_is_refused() -> None:
    trainer = SimpleNamespace(callbacks=[StochasticWeightAveraging(swa_lrs=0.1)])
    with pytest.raises(InputError, match="strategy=fsdp: StochasticWeightAveraging cannot average sharded weights"):
        strategy_of(OwnModule()).setup(trainer)  # type: ignore[arg-type]
