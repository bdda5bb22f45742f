"""SqueezeNet: 1x1 convolutions that save most of the weights.

Source: F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB
model size", arXiv:1602.07360.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

from fastconv.nn.layer_arguments import RngLike, as_generator
from fastconv.nn.layers.activation_layers import ReLU
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.dropout_layers import Dropout
from fastconv.nn.layers.pooling_layers import AdaptiveAvgPool2d, Flatten, MaxPool2d
from fastconv.nn.models.building_blocks import UnnamedConcat, draw_he_uniform
from fastconv.nn.module import Module

# The widths of each fire module, and where there is max pooling.
_POOL = 0
_FIRES_1_0 = (_POOL, 16, 16, 32, _POOL, 32, 48, 48, 64, _POOL, 64)
_FIRES_1_1 = (_POOL, 16, 16, _POOL, 32, 32, _POOL, 48, 48, 64, 64)


def squeezenet1_0(
    num_classes: int = 1000, in_channels: int = 3, *, rng: RngLike = None
) -> Sequential:
    """Return SqueezeNet 1.0: 1.25 million parameters.

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the images.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights, and what `Dropout` drops.

    Returns
    -------
    Sequential
        For images (N, in_channels, H, W) of at least 21 x 21.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    F. Iandola et al., "SqueezeNet", arXiv:1602.07360.

    Examples
    --------
    >>> import numpy as np
    >>> squeezenet1_0(10, rng=0).eval()(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    return _squeezenet((96, 7), _FIRES_1_0, num_classes, in_channels, rng)


def squeezenet1_1(
    num_classes: int = 1000, in_channels: int = 3, *, rng: RngLike = None
) -> Sequential:
    """Return SqueezeNet 1.1: 1.24 million parameters, 2.4 times fewer operations than 1.0.

    Parameters
    ----------
    num_classes, in_channels, rng
        As in `squeezenet1_0`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> squeezenet1_1(rng=0).features[0]
    Conv2d(3, 64, kernel_size=(3, 3), stride=(2, 2))
    """
    return _squeezenet((64, 3), _FIRES_1_1, num_classes, in_channels, rng)


def _squeezenet(
    first: tuple[int, int], fires: Sequence[int], num_classes: int, in_channels: int, rng: RngLike
) -> Sequential:
    generator, (channels, kernel) = as_generator(rng), first
    features: list[Module] = [Conv2d(in_channels, channels, kernel, 2, rng=generator), ReLU()]
    for width in fires:
        if width == _POOL:
            features.append(MaxPool2d(3, 2, ceil_mode=True))
        else:
            features.append(_fire(channels, width, generator))
            channels = 8 * width
    last = Conv2d(channels, num_classes, 1, rng=generator)
    classifier = Sequential(Dropout(rng=generator), last, ReLU(), AdaptiveAvgPool2d(1))
    layers = {"features": Sequential(*features), "classifier": classifier, "flatten": Flatten()}
    model = Sequential(layers)
    draw_he_uniform(model, generator, last)
    return model


def _fire(channels: int, width: int, rng: Generator) -> Sequential:
    """Return a 1x1 convolution to few channels, then 1x1 and 3x3 ones beside each other."""
    branches = (
        {
            name: Conv2d(width, 4 * width, kernel, padding=kernel // 2, rng=rng),
            f"{name}_activation": ReLU(),
        }
        for name, kernel in (("expand1x1", 1), ("expand3x3", 3))
    )
    return Sequential(
        {
            "squeeze": Conv2d(channels, width, 1, rng=rng),
            "squeeze_activation": ReLU(),
            "": UnnamedConcat(*map(Sequential, branches)),
        }
    )
