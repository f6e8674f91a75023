"""FLOPs of a training step: those of matrix products and convolutions, forward and backward.

Source: torch.utils.flop_counter, which leaves out norms, softmax, dropout and the update; they are a few percent.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.throughput import measure_flops
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.tensor import DTensor

from arclight.interfaces import flops_per_unit, loss_in, training_step_args

Module = TypeVar("Module", bound=nn.Module)

log = logging.getLogger(__name__)


def count_useful(module: LightningModule, batch: Any) -> Mapping[str, float] | None:
    """Returns the FLOPs for each work unit of such batches; None if they cannot be counted, as with sharded weights."""
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        return None
    try:
        return flops_per_unit(batch, lambda batch: count_flops(module, batch))
    except Exception:  # a user's step may do what only a real fit or real numbers allow; speed is reported without FLOPs then
        log.debug("the FLOPs of a training step could not be counted", exc_info=True)
        return None


def count_flops(module: LightningModule, batch: Any) -> float:
    """Returns the FLOPs of one forward and backward pass over the batch, padding included.

    Runs on a copy on the meta device: nothing is computed, and no fused kernel hides its FLOPs, as the CPU's attention does.
    """
    ghost = copy_to_meta(module).train()
    args = training_step_args(ghost, move_data_to_device(batch, torch.device("meta")))
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*self.log")  # there is no trainer to log to
        return float(measure_flops(ghost, lambda: loss_in(ghost.training_step(*args)), lambda loss: loss))


def copy_to_meta(module: Module) -> Module:
    """Returns a copy on the meta device, which has all shapes and no memory."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo).to("meta")
