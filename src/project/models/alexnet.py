"""AlexNet for small images: five convolutions and three linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageInfo
from arclight.modules.dropout import Dropout, check_dropout


class AlexNet(nn.Module):
    """Computes the logits of an image; 7,139,722 parameters with the defaults, 3x32x32 images and 10 classes.

    Args:
        data_info: metadata of the images; both sides must be at least 15.
        hidden: units of each of the two hidden linear layers.
        dropout: before each of them, 0 to below 1.

    Raises:
        InputError: when the images are too small for the three pools, or a setting is out of range.

    Source:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012,
        section 3: the five widths, the kernels of layers 2 to 5, the overlapping 3x3 pools of stride 2 after layers 1, 2 and 5,
        and dropout 0.5. Differences:

        - The first kernel is 5x5 of stride 1, not 11x11 of stride 4: made for 224x224 images, that would leave 7x7 of 32x32.
        - No local response normalisation (it did not pay for Simonyan and Zisserman 2015, table 3, A-LRN) and no split of the
          channels into two groups (it spread the net over two GPUs).
        - 1,024 hidden units, not 4,096, for 2,304 features and 10 classes instead of 9,216 and 1,000.

        Weights are initialized as in section 5: N(0, 0.01), biases at 1 in convolutions 2, 4 and 5 and in the hidden linear
        layers, else 0. It matters, as there is no normalisation: with Adam at 1e-3 on ten synthetic patterns, batch 32, this
        initialization beat chance after some 40 steps; those of He et al. 2015, of torch's layers and of 0.01 with all biases 0
        had not after 60.
    """

    def __init__(self, data_info: ImageInfo, *, hidden: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        if hidden < 1:
            raise InputError(f"model.hidden={hidden} must be 1 or more", key="model.hidden")
        check_dropout({"dropout": dropout})
        if min(data_info.height, data_info.width) < 15:
            raise InputError(
                f"images of {data_info.height}x{data_info.width} are too small for the three pools of alexnet: "
                "give images of at least 15x15, or take model=cnn"
            )
        self.features = nn.Sequential(
            *(nn.Conv2d(data_info.channels, 96, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
            nn.Flatten(),
        )
        num_features = 256 * _after_pools(data_info.height) * _after_pools(data_info.width)
        self.head = nn.Sequential(
            *(Dropout(dropout), nn.Linear(num_features, hidden), nn.ReLU()),
            *(Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, len(data_info.classes)),
        )
        weighted = [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for module, bias in zip(weighted, (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0), strict=True):
            nn.init.normal_(module.weight, std=0.01)
            assert module.bias is not None
            nn.init.constant_(module.bias, bias)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of normalised images, float (B, C, H, W)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _after_pools(side: int) -> int:
    """Returns the side of the last feature map: three 3x3 pools of stride 2, with no padding."""
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
