"""Networks that torchvision does not have, in PyTorch, as they are usually written there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn


def mobilenet_v1(num_classes: int) -> nn.Module:
    """Return MobileNet with the parameters' names of torchvision's `mobilenet_v2`."""

    def conv(
        inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
    ) -> list[nn.Module]:
        geometry = (kernel, stride, kernel // 2, 1, groups, False)
        return [nn.Conv2d(inputs, outputs, *geometry), nn.BatchNorm2d(outputs), nn.ReLU()]

    widths = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    halved = (2, 4, 6, 12)
    blocks = [nn.Sequential(*conv(3, 32, 3, 2))]
    for i, (inputs, outputs) in enumerate(pairwise(widths), 1):
        stride = 2 if i in halved else 1
        blocks.append(
            nn.Sequential(*conv(inputs, inputs, 3, stride, inputs), *conv(inputs, outputs, 1, 1))
        )
    model = nn.Sequential()
    model.features = nn.Sequential(*blocks)
    model.pool, model.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model.classifier = nn.Sequential(nn.Dropout(0.001), nn.Linear(1024, num_classes))
    return model


class DoubleConv(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Any) -> Any:
        """Return their output."""
        return self.double_conv(x)


class Down(nn.Module):
    """Pooling, then convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x: Any) -> Any:
        """Return their output."""
        return self.maxpool_conv(x)


class Up(nn.Module):
    """A transposed convolution, then convolutions of it and of what was there before."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, 2)
        self.conv = DoubleConv(inputs, outputs)

    def forward(self, x: Any, before: Any) -> Any:
        """Return their output."""
        return self.conv(torch.cat([before, self.up(x)], 1))


class UNet(nn.Module):
    """U-Net, as in milesial/Pytorch-UNet with transposed convolutions."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.inc = DoubleConv(3, width)
        for i in range(4):
            setattr(self, f"down{i + 1}", Down(width << i, width << i + 1))
            setattr(self, f"up{4 - i}", Up(width << i + 1, width << i))
        self.outc = nn.Module()
        self.outc.conv = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Any) -> Any:
        """Return a class of each pixel."""
        before = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            before.append(down(before[-1]))
        x = before.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            x = up(x, before.pop())
        return self.outc.conv(x)


def unet(num_classes: int, width: int) -> nn.Module:
    """Return U-Net."""
    return UNet(num_classes, width)
