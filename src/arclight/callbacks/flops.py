"""The arithmetic of a training step: FLOPs of its matrix products and convolutions, forward and backward, counted once.

Source: torch.utils.flop_counter, which leaves out norms, softmax, dropout and the update; they are a few percent.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from arclight.images.info import ImageBatch
from arclight.modules.supervised import SupervisedModule
from arclight.text.info import TokenBatch

SHORT, LONG = 8, 16  # subwords in the two sentences that are counted


class Flops(NamedTuple):
    """FLOPs of a training step for each image, each real subword, and each pair of subwords that attend to one another.

    `samples`, `tokens` and `pairs` of the batches times these are the useful FLOPs: no padding, no attention to it.
    """

    sample: float = 0.0
    token: float = 0.0
    pair: float = 0.0

    def of(self, samples: float, tokens: float, pairs: float) -> float:
        """Of so many in all."""
        return self.sample * samples + self.token * tokens + self.pair * pairs


def count_useful(module: SupervisedModule, batch: ImageBatch | TokenBatch) -> Flops | None:
    """What the batches of this kind cost; None where the net cannot be counted, as one that is spread over processes.

    A sentence of T subwords costs a T + b T^2, and two lengths tell a and b.
    """
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        return None
    try:
        if isinstance(batch, ImageBatch):
            one = ImageBatch(batch.images[:1], batch.labels[:1], batch.indices[:1])
            return Flops(sample=count_flops(module, one))
        short, long = (count_flops(module, one_sentence(length, batch.input_ids.device)) for length in (SHORT, LONG))
    except (NotImplementedError, RuntimeError):  # an operation that knows no shapes without numbers
        return None
    pair = (long / LONG - short / SHORT) / (LONG - SHORT)
    return Flops(token=short / SHORT - pair * SHORT, pair=pair)


def one_sentence(length: int, device: torch.device) -> TokenBatch:
    """A batch of one sentence of so many subwords, each of them a word."""
    row = torch.zeros(1, length, dtype=torch.int64, device=device)
    return TokenBatch(row, row + 1, row, row, row, row[:, 0], length, float(length))


def count_flops(module: SupervisedModule, batch: ImageBatch | TokenBatch) -> float:
    """FLOPs of the matrix products and convolutions of one forward and backward pass over the batch, padding included.

    Works on a copy without numbers, where nothing is computed and no kernel hides its FLOPs, as the CPU's attention does.
    """
    from torch.utils.flop_counter import FlopCounterMode

    meta = torch.device("meta")
    ghost = without_numbers(module).train()
    given: Any = batch
    moved = given._make(part.to(meta) if isinstance(part, Tensor) else part for part in given)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        loss: Any = ghost.training_step(moved)
        loss.backward()
    return float(counter.get_total_flops())


def without_numbers(module: SupervisedModule) -> SupervisedModule:
    """A copy that has all shapes and no memory."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    ghost: SupervisedModule = copy.deepcopy(module, memo)
    return ghost.to("meta")
