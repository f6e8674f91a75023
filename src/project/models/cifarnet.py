"""CifarNet: a small net that learns CIFAR-10 in few steps; its first layer is computed, not learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageInfo

Activation = Literal["gelu", "relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
WHITENING_EPSILON = 5e-4  # limits the amplification of directions in which patches hardly vary
IMAGES_AT_ONCE = 100  # whose patches are in memory


class CifarNet(nn.Module):
    """Computes the logits of an image; 1,971,352 parameters are learned and 288 computed with the defaults and CIFAR-10.

    The first layer whitens patches: its outputs have equal variance and no correlation. `fit_first_layer` computes it from
    training images before the first step, then it is frozen. It is followed by blocks, each of which halves height and width, a
    global max pool and a linear layer.

    Args:
        data_info: metadata of the images.
        widths: channels of each block.
        convolutions: 3x3 convolutions in each block, 1 or more.
        patch: side of the first layer's patches, in pixels.
        stride: of the first layer; 2 makes every later layer four times cheaper.
        num_patterns: number of whitening directions, those of the largest variance; None is all of them. The first layer has
            twice as many channels, one for each direction and its opposite.
        activation: "gelu", or "relu", which is faster on a CPU.
        dirac: initializes each convolution as the identity, as far as it has channels.
        norm_momentum: weight of the current batch in the running statistics of batch normalisation.
        head_scale: factor on the logits. The initial logits do not depend on it; the last layer's learning rate scales with
            its square.

    Raises:
        InputError: when a setting is out of range, or the images are too small for the blocks.

    Source:
        Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498, sections 3.1 to 3.3,
        and its program https://github.com/KellerJordan/cifar10-airbench: whitening after Coates and Ng 2012 and Page 2019 ("How
        to train your ResNet 8"), identity initialization after Zagoruyko and Komodakis 2017 (DiracNets), batch normalisation
        whose scale stays 1. Differences: any image size; convolutions, stride, patterns and activation can be set; the bias of
        the first layer is learned to the end, not for three epochs.
    """

    def __init__(
        self,
        data_info: ImageInfo,
        *,
        widths: Sequence[int] = (64, 256, 256),
        convolutions: int = 2,
        patch: int = 2,
        stride: int = 1,
        num_patterns: int | None = None,
        activation: Activation = "gelu",
        dirac: bool = True,
        norm_momentum: float = 0.4,
        head_scale: float = 1 / 64,
    ) -> None:
        super().__init__()
        check_ranges(widths, norm_momentum, head_scale, convolutions=convolutions, patch=patch, stride=stride)
        num_directions = data_info.channels * patch**2
        kept = num_directions if num_patterns is None else num_patterns
        if not 1 <= kept <= num_directions:
            raise InputError(
                f"model.num_patterns={kept} must lie between 1 and {num_directions}, the numbers in a patch of {patch}x{patch} "
                f"pixels and {data_info.channels} channels; null is all",
                key="model.num_patterns",
            )
        shrink = 2 ** len(widths)
        if (smallest := (min(data_info.height, data_info.width) - patch) // stride + 1) < shrink:
            raise InputError(
                f"images of {data_info.height}x{data_info.width} are too small for model.widths={list(widths)}: after the "
                f"first layer a side has {smallest} pixels, and {len(widths)} blocks need "
                f"{shrink}; use fewer widths or a smaller stride"
            )
        self.whiten = nn.Conv2d(data_info.channels, 2 * kept, patch, stride=stride)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        make = ACTIVATIONS[activation]
        channels = (2 * kept, *widths)
        self.blocks = nn.Sequential(
            make(),
            *(
                block(channels[i], channels[i + 1], convolutions, make=make, dirac=dirac, norm_momentum=norm_momentum)
                for i in range(len(widths))
            ),
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[-1], len(data_info.classes), bias=False)
        nn.init.normal_(self.head.weight, std=1 / (widths[-1] * head_scale))
        self.head_scale = head_scale

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of normalised images, float (B, C, H, W)."""
        features = self.pool(self.blocks(self.whiten(images))).flatten(1)  # (B, widths[-1])
        logits: Tensor = self.head(features) * self.head_scale
        return logits

    @torch.no_grad()
    def fit_first_layer(self, images: Tensor) -> None:
        """Computes the first layer's filters from normalised training images, float (N, C, H, W); some thousands are enough."""
        size, kept = self.whiten.kernel_size[0], self.whiten.out_channels // 2
        filters = whitening_filters(images, size)[:kept]  # (kept, C, size, size)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def whitening_filters(images: Tensor, size: int) -> Tensor:
    """Returns filters (D, C, size, size), D = C * size * size, whose outputs have variance 1 and no correlation.

    They are ordered by the variance of patches along them, largest first. The largest value of each is positive, so that the
    same images give the same filters whatever sign the solver returns.

    Args:
        images: normalised, float (N, C, H, W).
        size: side of the patches, in pixels.
    """
    channels, total, count = images.shape[1], torch.zeros((), dtype=torch.float64), 0
    for some in images.split(IMAGES_AT_ONCE):
        patches = nn.functional.unfold(some.float(), size)  # (n, D, places)
        total = total.to(some.device) + (patches @ patches.mT).double().sum(0)
        count += len(patches) * patches.shape[2]
    variances, directions = torch.linalg.eigh(total / count)  # ascending; directions are columns
    filters = (directions / (variances + WHITENING_EPSILON).sqrt()).T.flip(0)
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    return (filters * largest.sign()).float().view(-1, channels, size, size)


def block(
    channels_in: int,
    channels_out: int,
    convolutions: int,
    *,
    make: Callable[[], nn.Module],
    dirac: bool,
    norm_momentum: float,
) -> nn.Sequential:
    """Returns convolutions with batch normalisation and activation; a 2x2 max pool after the first halves the sides."""
    layers: list[nn.Module] = []
    for number in range(convolutions):
        convolution = nn.Conv2d(channels_in if number == 0 else channels_out, channels_out, 3, padding=1, bias=False)
        if dirac:
            nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
        norm = nn.BatchNorm2d(channels_out, eps=1e-5, momentum=norm_momentum)
        norm.weight.requires_grad_(False)
        layers += [convolution, *([nn.MaxPool2d(2)] if number == 0 else []), norm, make()]
    return nn.Sequential(*layers)


def check_ranges(
    widths: Sequence[int], norm_momentum: float, head_scale: float, *, convolutions: int, patch: int, stride: int
) -> None:
    """Raises InputError for a setting of CifarNet that is out of range."""
    if not widths or min(widths) < 1:
        raise InputError(
            f"model.widths={list(widths)} must be one or more numbers, each 1 or more, such as [64, 256, 256]",
            key="model.widths",
        )
    for name, value in (("convolutions", convolutions), ("patch", patch), ("stride", stride)):
        if value < 1:
            raise InputError(f"model.{name}={value} must be 1 or more", key=f"model.{name}")
    if not 0 < norm_momentum <= 1:
        raise InputError(f"model.norm_momentum={norm_momentum} must be above 0 and at most 1", key="model.norm_momentum")
    if head_scale <= 0:
        raise InputError(f"model.head_scale={head_scale} must be more than 0", key="model.head_scale")
