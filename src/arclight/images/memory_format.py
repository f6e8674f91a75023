"""The memory format of images and filters, where torch computes right with it."""

from __future__ import annotations

import logging

import torch
from torch import nn

FEWEST_CHANNELS = 8

log = logging.getLogger(__name__)


def memory_format_for(net: nn.Module, *, channels_last: bool) -> torch.memory_format:
    """Returns the format for a net: channels last if requested, unless the net has a convolution that it is unsafe for.

    On CPUs the gradient of a 1x1 convolution with a stride and 2 to 7 channels writes outside its memory with channels last
    (torch 2.13.0 and 2.14.1): the process crashes, or computes wrong numbers.
    """
    if not channels_last:
        return torch.contiguous_format
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and is_unsafe(module):
            log.warning("channels_last is off: torch crashes with %s, a 1x1 convolution with a stride and few channels", name)
            return torch.contiguous_format
    return torch.channels_last


def is_unsafe(layer: nn.Conv2d) -> bool:
    """Returns whether torch's gradient of a convolution is wrong on CPUs with channels last."""
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and 1 < layer.in_channels // layer.groups < FEWEST_CHANNELS
