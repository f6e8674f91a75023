"""ResNet-18 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageInfo


class ResNet18(nn.Module):
    """Computes the logits of an image; 11,173,962 parameters with width 64, three channels and 10 classes at any size.

    Args:
        data_info: metadata of the images, of any size; above 64x64 they are slow, as the first stage runs at full size.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.

    Raises:
        InputError: when `width` is below 1.

    Source:
        He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016: table 1, 18 layers, with projection
        shortcuts where the shape changes (option B); weights are initialized as in He et al. 2015. Differences:

        - The first layer is a 3x3 convolution of stride 1 with no pool after it, as in the paper's own CIFAR-10 nets (section
          4.2): 7x7 of stride 2 and the pool would leave 8x8 of 32x32 before the first block.
        - The last batch normalisation of each block starts with scale 0 (Goyal et al. 2017, "Accurate, large minibatch SGD",
          section 5.1). Every block then starts as the identity, so that the signal does not grow and large learning rates
          are stable from the first step, which short schedules need.
    """

    def __init__(self, data_info: ImageInfo, *, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"model.width={width} must be 1 or more", key="model.width")
        self.stem = nn.Sequential(
            nn.Conv2d(data_info.channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[Block] = []
        channels = width
        for stage in range(4):
            for stride in (1 if stage == 0 else 2, 1):
                blocks.append(Block(channels, width * 2**stage, stride=stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(data_info.classes)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for block in blocks:
            nn.init.zeros_(block.norm2.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of normalised images, float (B, C, H, W)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; `stride` divides height and width, rounded up."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)
        residual = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out
