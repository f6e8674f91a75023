"""The plain convolutional net: its exact size, any image that its pools allow, and what it tells about wrong settings."""

from __future__ import annotations

import pytest
import torch

from arclight.errors import InputError
from arclight.images.info import ImageInfo
from project.models.cnn import Cnn


def images_of(channels: int = 3, height: int = 32, width: int = 32, num_classes: int = 10) -> ImageInfo:
    classes = tuple(f"class {i}" for i in range(num_classes))
    return ImageInfo(
        channels=channels, height=height, width=width, classes=classes, mean=(0.5,) * channels, std=(0.25,) * channels
    )


def num_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes_are_the_hand_counted_ones() -> None:
    blocks = (3 * 32 * 9 + 32) + (32 * 64 * 9 + 64)
    assert num_parameters(Cnn(images_of())) == blocks + (64 * 8 * 8 * 1024 + 1024) + (1024 * 10 + 10) == 4_224_970
    small = (3 * 16 * 9 + 16) + (16 * 32 * 9 + 32) + (32 * 8 * 8 * 10 + 10)
    assert num_parameters(Cnn(images_of(), widths=(16, 32), hidden=None)) == small == 25_578


@pytest.mark.parametrize(
    ("channels", "height", "width", "num_classes"), [(3, 32, 32, 10), (1, 28, 28, 47), (4, 9, 21, 2), (3, 4, 4, 1)]
)
def test_any_image_that_the_pools_allow_gives_logits_per_class(
    channels: int, height: int, width: int, num_classes: int
) -> None:
    net = Cnn(images_of(channels, height, width, num_classes), widths=(4, 8), hidden=16)
    assert net(torch.randn(5, channels, height, width)).shape == (5, num_classes)


@pytest.mark.parametrize("hidden", [16, None])
def test_dropout_acts_in_training_only(hidden: int | None) -> None:
    torch.manual_seed(0)
    net = Cnn(images_of(height=8, width=8), widths=(4,), hidden=hidden, dropout=0.5)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


def test_dropout_changes_no_name_of_a_weight() -> None:
    with_dropout = Cnn(images_of(), widths=(4,), hidden=8, dropout=0.3)
    Cnn(images_of(), widths=(4,), hidden=8).load_state_dict(with_dropout.state_dict(), strict=True)


def test_an_image_too_small_is_reported_with_the_smallest_allowed() -> None:
    with pytest.raises(InputError, match=r"7x32 are too small for model\.widths=\[4, 8, 16\].*at least 8x8"):
        Cnn(images_of(height=7), widths=(4, 8, 16))
    Cnn(images_of(height=8), widths=(4, 8, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, r"model\.widths=\[\] must be one or more numbers"),
        ({"widths": (8, 0)}, r"model\.widths=\[8, 0\] must be one or more numbers, each 1 or more"),
        ({"hidden": 0}, r"model\.hidden=0 must be 1 or more, or null"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0 must be at least 0 and below 1"),
        ({"dropout": -0.1}, r"model\.dropout=-0\.1 must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_reported(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cnn(images_of(), **settings)  # type: ignore[arg-type]  # each case is one wrong value
