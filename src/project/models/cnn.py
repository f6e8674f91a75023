"""A plain convolutional net for small images: a block of convolution and pooling per width, then one or two linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageInfo
from arclight.modules.dropout import Dropout, check_dropout


class Cnn(nn.Module):
    """Computes the logits of an image; 4,224,970 parameters with the defaults, 3x32x32 images and 10 classes.

    Each width is one block: 3x3 convolution that keeps height and width, 2x2 max pool that halves them (rounded down), ReLU.

    Args:
        data_info: metadata of the images; both sides must be at least 2 to the power of the number of widths.
        widths: channels after each block.
        hidden: units of the linear layer between the blocks and the logits; None leaves that layer out.
        dropout: before the last linear layer, 0 to below 1.

    Raises:
        InputError: when the images are too small for the blocks, or a setting is out of range.
    """

    def __init__(
        self, data_info: ImageInfo, *, widths: Sequence[int] = (32, 64), hidden: int | None = 1024, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise InputError(
                f"model.widths={list(widths)} must be one or more numbers, each 1 or more, such as [32, 64]", key="model.widths"
            )
        if hidden is not None and hidden < 1:
            raise InputError(f"model.hidden={hidden} must be 1 or more, or null for no hidden layer", key="model.hidden")
        check_dropout({"dropout": dropout})
        shrink = 2 ** len(widths)
        if min(data_info.height, data_info.width) < shrink:
            raise InputError(
                f"images of {data_info.height}x{data_info.width} are too small for model.widths={list(widths)}, which halves "
                f"them {len(widths)} times: use images of at least {shrink}x{shrink}, or set fewer widths"
            )
        channels = (data_info.channels, *widths)
        self.blocks = nn.Sequential(*(_block(channels[i], channels[i + 1]) for i in range(len(widths))))
        num_features = widths[-1] * (data_info.height // shrink) * (data_info.width // shrink)
        layers: list[nn.Module] = [nn.Flatten()]
        if hidden is not None:
            layers += [nn.Linear(num_features, hidden), nn.ReLU()]
            num_features = hidden
        self.head = nn.Sequential(*layers, Dropout(dropout), nn.Linear(num_features, len(data_info.classes)))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of normalised images, float (B, C, H, W)."""
        logits: Tensor = self.head(self.blocks(images))
        return logits


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    # pooling first gives the same values and gradients, and leaves a quarter of the values to the ReLU
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True))
