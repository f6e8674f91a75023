"""Nets that torch cannot train with channels last keep the ordinary format."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from arclight.images.memory_format import memory_format_for


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), torch.contiguous_format),
        (nn.Conv2d(2, 8, 1, stride=(1, 2)), torch.contiguous_format),
        (nn.Conv2d(8, 8, 1, stride=2, groups=2), torch.contiguous_format),
        (nn.Conv2d(8, 16, 1, stride=2), torch.channels_last),
        (nn.Conv2d(1, 16, 1, stride=2), torch.channels_last),
        (nn.Conv2d(4, 8, 1), torch.channels_last),
        (nn.Conv2d(4, 8, 3, stride=2), torch.channels_last),
    ],
)
def test_format_by_layer(layer: nn.Module, expected: torch.memory_format, caplog: pytest.LogCaptureFixture) -> None:
    assert memory_format_for(nn.Sequential(nn.ReLU(), layer), channels_last=True) == expected
    assert ("channels_last is off: torch crashes with 1" in caplog.text) is (expected == torch.contiguous_format)
    assert memory_format_for(layer, channels_last=False) == torch.contiguous_format


GRADIENT = """
import torch
from torch import nn
layer = nn.Conv2d({channels}, 16, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
for _ in range(20):
    images = torch.randn(8, {channels}, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    layer(images).sum().backward()
"""


@pytest.mark.processes
def test_the_layers_that_keep_channels_last_do_not_crash() -> None:
    for channels in (1, 8, 9, 12, 20):
        typed = [sys.executable, "-c", GRADIENT.format(channels=channels)]
        assert subprocess.run(typed, env={"MALLOC_CHECK_": "3"}, check=False, timeout=120).returncode == 0
