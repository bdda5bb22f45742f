"""MobileNets: depthwise convolutions.

Sources: A. Howard et al., "MobileNets", arXiv:1704.04861; M. Sandler et al., "MobileNetV2",
arXiv:1801.04381.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

from fastconv.nn.layer_arguments import RngLike, as_generator, as_number
from fastconv.nn.layers.activation_layers import ReLU, ReLU6
from fastconv.nn.layers.batch_norm import BatchNorm2d
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.dropout_layers import Dropout
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.layers.pooling_layers import AdaptiveAvgPool2d, Flatten
from fastconv.nn.models.building_blocks import NamedResidual, draw_he_normal
from fastconv.nn.module import Module

# (channels, stride) of each pair of a depthwise and a 1x1 convolution.
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2))
# (expansion, channels, how often, stride of the first one).
_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def mobilenet_v1(
    num_classes: int = 1000,
    in_channels: int = 3,
    width_mult: float = 1.0,
    *,
    rng: RngLike = None,
) -> Sequential:
    """Return MobileNet: 4.2 million parameters.

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the images.
    width_mult : float
        What the channels of all layers are multiplied by, rounded to multiples of 8.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights, and what `Dropout` drops.

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
    A. Howard et al., "MobileNets", arXiv:1704.04861.

    Examples
    --------
    >>> import numpy as np
    >>> mobilenet_v1(10, width_mult=0.25, rng=0).eval()(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    generator, width = as_generator(rng), as_number("width_mult", width_mult, 0)
    channels = _multiple_of_8(32 * width)
    features = [Sequential(*_conv(in_channels, channels, 3, 2, ReLU, generator))]
    for number, stride in (*_V1, (1024, 1)):
        outputs = _multiple_of_8(number * width)
        depthwise = _conv(channels, channels, 3, stride, ReLU, generator, groups=channels)
        features.append(Sequential(*depthwise, *_conv(channels, outputs, 1, 1, ReLU, generator)))
        channels = outputs
    return _classifying(features, channels, num_classes, 0.001, generator)


def mobilenet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    width_mult: float = 1.0,
    *,
    rng: RngLike = None,
) -> Sequential:
    """Return MobileNetV2: 3.5 million parameters.

    Parameters
    ----------
    num_classes, in_channels, width_mult, rng
        As in `mobilenet_v1`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    M. Sandler et al., "MobileNetV2", arXiv:1801.04381.

    Examples
    --------
    >>> mobilenet_v2(rng=0).classifier[1]
    Linear(in_features=1280, out_features=1000, bias=True)
    """
    generator, width = as_generator(rng), as_number("width_mult", width_mult, 0)
    channels = _multiple_of_8(32 * width)
    features: list[Module] = [Sequential(*_conv(in_channels, channels, 3, 2, ReLU6, generator))]
    for expansion, number, count, stride in _V2:
        outputs = _multiple_of_8(number * width)
        for i in range(count):
            own_stride = 1 if i else stride
            features.append(_inverted_residual(channels, outputs, expansion, own_stride, generator))
            channels = outputs
    last = _multiple_of_8(1280 * max(1.0, width))
    features.append(Sequential(*_conv(channels, last, 1, 1, ReLU6, generator)))
    return _classifying(features, last, num_classes, 0.2, generator)


def _inverted_residual(
    inputs: int, outputs: int, expansion: int, stride: int, rng: Generator
) -> Module:
    """Return a 1x1 convolution to many channels, a depthwise one, and a 1x1 one to few."""
    wide = expansion * inputs
    layers = [Sequential(*_conv(inputs, wide, 1, 1, ReLU6, rng))] if expansion > 1 else []
    layers.append(Sequential(*_conv(wide, wide, 3, stride, ReLU6, rng, groups=wide)))
    body = Sequential(*layers, *_conv(wide, outputs, 1, 1, None, rng))
    if stride == 1 and inputs == outputs:
        return NamedResidual(body, names=("conv", ""))
    return Sequential({"conv": body})


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    activation: type[Module] | None,
    rng: Generator,
    *,
    groups: int = 1,
) -> list[Module]:
    """Return a convolution, batch normalization, and an activation."""
    geometry = (kernel, stride, kernel // 2, 1, groups, False)
    layers = [Conv2d(inputs, outputs, *geometry, rng=rng), BatchNorm2d(outputs)]
    return layers if activation is None else [*layers, activation()]


def _classifying(
    features: Sequence[Module], channels: int, num_classes: int, dropout: float, rng: Generator
) -> Sequential:
    """Return a network of those features and one dense layer."""
    classifier = Sequential(Dropout(dropout, rng=rng), Linear(channels, num_classes, rng=rng))
    layers = {"features": Sequential(*features), "avgpool": AdaptiveAvgPool2d(1)}
    model = Sequential({**layers, "flatten": Flatten(), "classifier": classifier})
    draw_he_normal(model, rng)
    return model


def _multiple_of_8(channels: float) -> int:
    """Return the nearest multiple of 8, which must not be below 90%; at least 8.

    >>> _multiple_of_8(32 * 0.35)
    16
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
