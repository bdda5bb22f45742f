"""Residual networks.

Source: K. He et al., "Deep residual learning for image recognition", arXiv:1512.03385. As in
torchvision, the 3x3 convolution of a bottleneck has the stride.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

from fastconv.nn.init import kaiming_normal
from fastconv.nn.layer_arguments import RngLike, as_generator
from fastconv.nn.layers.activation_layers import ReLU
from fastconv.nn.layers.batch_norm import BatchNorm2d
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.layers.pooling_layers import AdaptiveAvgPool2d, Flatten, MaxPool2d
from fastconv.nn.models.building_blocks import NamedResidual
from fastconv.nn.module import Module


def resnet18(num_classes: int = 1000, in_channels: int = 3, *, rng: RngLike = None) -> Sequential:
    """Return ResNet-18: 11.7 million parameters.

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the images.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights.

    Returns
    -------
    Sequential
        For images (N, in_channels, H, W).

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", arXiv:1512.03385.

    Examples
    --------
    >>> import numpy as np
    >>> resnet18(10, rng=0).eval()(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    return _resnet((2, 2, 2, 2), False, num_classes, in_channels, rng)


def resnet34(num_classes: int = 1000, in_channels: int = 3, *, rng: RngLike = None) -> Sequential:
    """Return ResNet-34: 21.8 million parameters.

    Parameters
    ----------
    num_classes, in_channels, rng
        As in `resnet18`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> len(resnet34(rng=0).layer3)
    6
    """
    return _resnet((3, 4, 6, 3), False, num_classes, in_channels, rng)


def resnet50(num_classes: int = 1000, in_channels: int = 3, *, rng: RngLike = None) -> Sequential:
    """Return ResNet-50, of bottlenecks of three convolutions: 25.6 million parameters.

    Parameters
    ----------
    num_classes, in_channels, rng
        As in `resnet18`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> resnet50(rng=0).fc
    Linear(in_features=2048, out_features=1000, bias=True)
    """
    return _resnet((3, 4, 6, 3), True, num_classes, in_channels, rng)


def _resnet(
    blocks: Sequence[int], bottlenecks: bool, num_classes: int, in_channels: int, rng: RngLike
) -> Sequential:
    generator = as_generator(rng)
    layers: dict[str, Module] = {
        "conv1": _conv(in_channels, 64, 7, 2, generator),
        "bn1": BatchNorm2d(64),
        "relu": ReLU(),
        "maxpool": MaxPool2d(3, 2, 1),
    }
    channels = 64
    for stage, count in enumerate(blocks):
        width, stage_blocks = 64 << stage, list[Module]()
        for number in range(count):
            stride = 2 if stage and not number else 1
            widths = (width, width, 4 * width) if bottlenecks else (width, width)
            stage_blocks.append(_block(channels, widths, stride, generator))
            channels = widths[-1]
        layers[f"layer{stage + 1}"] = Sequential(*stage_blocks)
    layers |= {"avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten()}
    return Sequential({**layers, "fc": Linear(channels, num_classes, rng=generator)})


def _block(channels: int, widths: Sequence[int], stride: int, rng: Generator) -> Sequential:
    """Return convolutions of those widths, three of them with 1x1, 3x3 and 1x1 kernels."""
    body: dict[str, Module] = {}
    inputs, last = channels, len(widths)
    for number, width in enumerate(widths, 1):
        kernel = 1 if last == 3 and number != 2 else 3
        own_stride = stride if number == last - 1 else 1
        body[f"conv{number}"] = _conv(inputs, width, kernel, own_stride, rng)
        body[f"bn{number}"] = BatchNorm2d(width)
        if number < last:
            body[f"relu{number}"] = ReLU()
        inputs = width
    shortcut = None
    if stride != 1 or channels != inputs:
        shortcut = Sequential(_conv(channels, inputs, 1, stride, rng), BatchNorm2d(inputs))
    block = NamedResidual(Sequential(body), shortcut, names=("", "downsample"))
    return Sequential({"": block, "relu": ReLU()})


def _conv(inputs: int, outputs: int, kernel: int, stride: int, rng: Generator) -> Conv2d:
    """Return a convolution with He's normal weights by fan-out, and no bias."""
    conv = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, rng=rng)
    conv.weight.data = kaiming_normal(conv.weight.shape, rng, mode="fan_out", nonlinearity="relu")
    return conv
