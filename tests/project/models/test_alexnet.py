"""AlexNet for small images: its exact size, the images it takes, and a start from which training gets off the ground."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from arclight.errors import InputError
from arclight.images.info import ImageInfo
from project.models.alexnet import AlexNet


def images_of(height: int = 32, width: int = 32, channels: int = 3, num_classes: int = 10) -> ImageInfo:
    classes = tuple(f"class {i}" for i in range(num_classes))
    return ImageInfo(
        channels=channels, height=height, width=width, classes=classes, mean=(0.5,) * channels, std=(0.25,) * channels
    )


def test_size_is_the_hand_counted_one() -> None:
    convolutions = (
        (3 * 96 * 25 + 96) + (96 * 256 * 25 + 256) + (256 * 384 * 9 + 384) + (384 * 384 * 9 + 384) + (384 * 256 * 9 + 256)
    )
    linear = (256 * 3 * 3 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 10 + 10)
    net = AlexNet(images_of())
    assert sum(parameter.numel() for parameter in net.parameters()) == convolutions + linear == 7_139_722


@pytest.mark.parametrize(("height", "width", "channels", "num_classes"), [(15, 15, 1, 3), (28, 40, 3, 10), (64, 33, 4, 2)])
def test_any_image_of_15x15_and_more_gives_logits_per_class(height: int, width: int, channels: int, num_classes: int) -> None:
    net = AlexNet(images_of(height, width, channels, num_classes), hidden=16)
    assert net(torch.randn(2, channels, height, width)).shape == (2, num_classes)


def test_an_image_too_small_is_reported_with_the_smallest_allowed() -> None:
    with pytest.raises(InputError, match=r"images of 32x14 are too small .* at least 15x15, or take model=cnn"):
        AlexNet(images_of(width=14))


def test_weights_start_as_in_the_paper() -> None:
    torch.manual_seed(0)
    net = AlexNet(images_of(), hidden=64)
    weighted = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert [module.bias.unique().tolist() for module in weighted] == [[0], [1], [0], [1], [1], [1], [1], [0]]
    for module in weighted:
        assert 0.009 < module.weight.std() < 0.011


def test_training_starts_at_chance_with_a_gradient_in_every_layer() -> None:
    torch.manual_seed(0)
    net = AlexNet(images_of())
    loss = cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8))
    assert abs(loss - math.log(10)) < 0.3
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm() > 1e-4, name


def test_no_layer_dies_in_the_first_steps_at_1e_3() -> None:
    torch.manual_seed(0)
    net = AlexNet(images_of(15, 15), hidden=256)
    images, labels = torch.randn(8, 3, 15, 15), torch.arange(8)
    for _ in range(4):
        net.zero_grad()
        cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter -= 1e-3 * parameter.grad.sign()  # what Adam's first step is
    shares: list[float] = []
    for module in net.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda _, __, out: shares.append((out > 0).float().mean().item()))
    net.eval()(images)
    assert len(shares) == 7
    assert min(shares) > 0.02  # a dead layer gives 0 for every image


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = AlexNet(images_of(15, 15), hidden=32)
    images = torch.randn(2, 3, 15, 15)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, r"model\.hidden=0 must be 1 or more"),
        ({"dropout": 1.5}, r"model\.dropout=1\.5 must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_reported(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AlexNet(images_of(), **settings)  # type: ignore[arg-type]  # each case is one wrong value
