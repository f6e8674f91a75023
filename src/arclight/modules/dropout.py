"""Dropout that draws its mask four numbers at a time, on CPUs, where torch draws one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from arclight.errors import InputError

LEVELS = 1 << 16  # of the numbers that are drawn


class Dropout(nn.Dropout):
    """As torch's, with the share that is dropped rounded to 1/65,536, and scaled by what is kept of it.

    Without MKL, which torch takes on Intel's CPUs alone, torch draws double-precision numbers in one thread: a seventh of a
    training step of a small encoder. Every CPU draws the same here; not measured on Intel's. On other devices, and when it is
    compiled, this is torch's own.

    Source: bernoulli_scalar_kernel in torch's aten/src/ATen/native/cpu/DistributionKernels.cpp.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape and dtype, float; a share `p` of it 0 in training, the rest divided by 1 - p."""
        dropped = round(self.p * LEVELS)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < LEVELS or torch.compiler.is_compiling():
            return super().forward(input)
        return input * scaled_mask(input, dropped)


def scaled_mask(like: Tensor, dropped: int) -> Tensor:
    """0 for `dropped` of 65,536 places at random, and what makes up for it in the others; of this shape and dtype."""
    numbers = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    kept = numbers.view(torch.int16)[: like.numel()] >= dropped - LEVELS // 2
    return kept.to(like.dtype).mul_(LEVELS / (LEVELS - dropped)).view(like.shape)


def check_dropout(shares: Mapping[str, float | None]) -> None:
    """Raises InputError for a share that is dropped in training and is none, by the name of its setting of the model."""
    for name, share in shares.items():
        if share is not None and not 0 <= share < 1:
            raise InputError(f"model.{name}={share} must be at least 0 and below 1")


def replace_dropout(net: nn.Module) -> None:
    """Puts this dropout in the place of torch's wherever it stands below `net`; weights and their names stay."""
    for module in net.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
