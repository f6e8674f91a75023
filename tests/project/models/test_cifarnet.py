"""CifarNet: the published size, a first layer that whitens, identity convolutions, errors for wrong settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arclight.data.samplers import generator
from arclight.errors import InputError
from arclight.images.info import ImageInfo
from project.models.cifarnet import WHITENING_EPSILON, CifarNet, whitening_filters


def images_of(height: int = 32, width: int = 32, channels: int = 3, num_classes: int = 10) -> ImageInfo:
    classes = tuple(f"class {i}" for i in range(num_classes))
    return ImageInfo(
        channels=channels, height=height, width=width, classes=classes, mean=(0.5,) * channels, std=(0.25,) * channels
    )


def smooth_images(num: int = 250, channels: int = 3) -> Tensor:
    """Noise whose neighbouring pixels and channels are alike, as those of photographs are."""
    noise = torch.randn(num, channels, 12, 12, generator=generator(0))
    return nn.functional.avg_pool2d(noise, 3, stride=1) * 3 + 0.5 * noise.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]


def test_size_is_the_published_one() -> None:
    net = CifarNet(images_of())
    learned = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    # 24 biases, six convolutions, a bias per channel behind each of them, 256 x 10
    filters = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    assert learned == 24 + filters + 2 * (64 + 256 + 256) + 2560 == 1_971_352
    assert net.whiten.weight.numel() == 288


def test_the_answers_of_the_first_layer_are_white() -> None:
    images = smooth_images()
    filters = whitening_filters(images, 2)
    answers = nn.functional.conv2d(images, filters).transpose(0, 1).flatten(1)  # (12, all patches)
    spread = answers @ answers.T / answers.shape[1]
    shrunk = filters.flatten(1).square().sum(1) * WHITENING_EPSILON  # what epsilon takes from each direction
    torch.testing.assert_close(spread, torch.eye(12) - torch.diag(shrunk), atol=2e-3, rtol=0)


def test_directions_come_by_their_spread_and_in_opposite_pairs() -> None:
    images = smooth_images()
    net = CifarNet(images_of(), num_patterns=5)
    net.fit_first_layer(images)
    first, second = net.whiten.weight.detach().split(5)
    assert torch.equal(first, -second)
    norms = first.flatten(1).norm(dim=1)  # large where the spread is small
    assert torch.equal(norms.sort().values, norms)
    assert torch.equal(first, whitening_filters(images, 2)[:5])


def test_the_first_layer_is_kept_in_the_state_and_is_not_learned() -> None:
    net, other = CifarNet(images_of(), widths=[4]), CifarNet(images_of(), widths=[4])
    net.fit_first_layer(smooth_images())
    assert not net.whiten.weight.requires_grad
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.whiten.weight, net.whiten.weight)


def test_the_same_images_give_the_same_filters_in_any_layout() -> None:
    images = smooth_images()
    assert torch.equal(whitening_filters(images, 3), whitening_filters(images.clone(), 3))
    other = whitening_filters(images.contiguous(memory_format=torch.channels_last), 3)
    torch.testing.assert_close(whitening_filters(images, 3), other, rtol=1e-3, atol=1e-4)


def test_convolutions_start_by_handing_on() -> None:
    net = CifarNet(images_of(), widths=[64], convolutions=2)
    convolutions = [module for module in net.blocks.modules() if isinstance(module, nn.Conv2d)]
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(convolutions[0](x)[:, :24], x)
    free = CifarNet(images_of(), widths=[64], dirac=False).blocks[1][0]
    assert not torch.allclose(free(x)[:, :24], x)


@pytest.mark.parametrize("head_scale", [1.0, 1 / 64])
def test_the_first_logits_do_not_depend_on_the_head_scale(head_scale: float) -> None:
    torch.manual_seed(0)
    net = CifarNet(images_of(), head_scale=head_scale)
    spread = float((net.head.weight.detach() * head_scale).std())
    assert spread == pytest.approx(1 / 256, rel=0.05)


@pytest.mark.parametrize(
    ("data_info", "settings"),
    [
        (images_of(28, 28, 1, 5), {}),
        (images_of(33, 50), {"widths": [8, 8], "convolutions": 1}),
        (images_of(), {"patch": 4, "stride": 2, "num_patterns": 24, "activation": "relu"}),
    ],
)
def test_any_image_gives_logits_per_class(data_info: ImageInfo, settings: dict[str, Any]) -> None:
    logits = CifarNet(data_info, **settings)(torch.randn(2, data_info.channels, data_info.height, data_info.width))
    assert logits.shape == (2, len(data_info.classes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": []}, r"model\.widths=\[\] must be one or more numbers"),
        ({"widths": [8, 0]}, r"model\.widths=\[8, 0\] must be one or more numbers"),
        ({"convolutions": 0}, r"model\.convolutions=0 must be 1 or more"),
        ({"patch": 0}, r"model\.patch=0 must be 1 or more"),
        ({"stride": 0}, r"model\.stride=0 must be 1 or more"),
        ({"norm_momentum": 0.0}, r"model\.norm_momentum=0\.0 must be above 0 and at most 1"),
        ({"head_scale": 0.0}, r"model\.head_scale=0\.0 must be more than 0"),
        ({"num_patterns": 13}, r"model\.num_patterns=13 must lie between 1 and 12"),
        ({"stride": 8}, r"images of 32x32 are too small .* a side has 4 pixels, and 3 blocks need 8"),
    ],
)
def test_a_setting_out_of_range_is_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CifarNet(images_of(), **settings)
