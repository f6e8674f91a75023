"""ResNet-18 for small images: the published size, the shapes of its stages, and blocks that start as their shortcuts."""

from __future__ import annotations

import pytest
import torch

from arclight.errors import InputError
from arclight.images.info import ImageInfo
from project.models.resnet import ResNet18


def images_of(height: int = 32, width: int = 32, channels: int = 3, num_classes: int = 10) -> ImageInfo:
    classes = tuple(f"class {i}" for i in range(num_classes))
    return ImageInfo(
        channels=channels, height=height, width=width, classes=classes, mean=(0.5,) * channels, std=(0.25,) * channels
    )


def test_size_is_the_published_one() -> None:
    net = ResNet18(images_of())
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_173_962
    # 20 convolutions, of which 3 are projections, and the last linear layer
    weighted = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == 18 + 3


def test_stages_halve_the_image_and_double_the_channels() -> None:
    net = ResNet18(images_of(), width=4)
    shapes = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    net(torch.randn(2, 3, 32, 32))
    assert shapes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2


@pytest.mark.parametrize(("height", "width", "channels", "num_classes"), [(1, 1, 3, 2), (28, 28, 1, 10), (9, 50, 4, 3)])
def test_any_image_gives_logits_per_class(height: int, width: int, channels: int, num_classes: int) -> None:
    net = ResNet18(images_of(height, width, channels, num_classes), width=4)
    assert net(torch.randn(3, channels, height, width)).shape == (3, num_classes)


def test_every_block_starts_as_its_shortcut() -> None:
    torch.manual_seed(0)
    net = ResNet18(images_of(), width=4).eval()
    x = torch.randn(2, 3, 32, 32)
    x = net.stem(x)
    for block in net.blocks:
        expected = torch.relu(block.shortcut(x))
        x = block(x)
        assert torch.equal(x, expected)
        assert x.std() > 0.01


def test_after_a_step_every_convolution_has_a_gradient() -> None:
    torch.manual_seed(0)
    net = ResNet18(images_of(8, 8), width=4)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    for _ in range(2):  # the first step moves the scales that start at 0, the second reaches what stands before them
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_width_out_of_range_is_reported() -> None:
    with pytest.raises(InputError, match=r"model\.width=0 must be 1 or more"):
        ResNet18(images_of(), width=0)
