"""VGG: 3x3 convolutions only.

Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image
recognition", arXiv:1409.1556.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.nn.layer_arguments import RngLike, as_generator
from fastconv.nn.layers.activation_layers import ReLU
from fastconv.nn.layers.batch_norm import BatchNorm2d
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.dropout_layers import Dropout
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.layers.pooling_layers import AdaptiveAvgPool2d, Flatten, MaxPool2d
from fastconv.nn.models.building_blocks import draw_he_normal
from fastconv.nn.module import Module

# How many convolutions there are before each pooling, and their channels.
_WIDTHS = (64, 128, 256, 512, 512)
_VGG11, _VGG16 = (1, 1, 2, 2, 2), (2, 2, 3, 3, 3)


def vgg11(
    num_classes: int = 1000, in_channels: int = 3, *, hidden: int = 4096, rng: RngLike = None
) -> Sequential:
    """Return VGG-11: 133 million parameters, most of them in its dense layers.

    Parameters
    ----------
    num_classes : int
        Outputs.
    in_channels : int
        Channels of the images.
    hidden : int
        Outputs of the two dense layers before the last one.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights, and what `Dropout` drops.

    Returns
    -------
    Sequential
        For images (N, in_channels, H, W) of at least 32 x 32.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image
    recognition", arXiv:1409.1556.

    Examples
    --------
    >>> import numpy as np
    >>> vgg11(10, hidden=64, rng=0).eval()(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    return _vgg(_VGG11, False, num_classes, in_channels, hidden, rng)


def vgg11_bn(
    num_classes: int = 1000, in_channels: int = 3, *, hidden: int = 4096, rng: RngLike = None
) -> Sequential:
    """Return VGG-11 with batch normalization after each convolution.

    Parameters
    ----------
    num_classes, in_channels, hidden, rng
        As in `vgg11`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> vgg11_bn(hidden=64, rng=0).features[1].num_features
    64
    """
    return _vgg(_VGG11, True, num_classes, in_channels, hidden, rng)


def vgg16(
    num_classes: int = 1000, in_channels: int = 3, *, hidden: int = 4096, rng: RngLike = None
) -> Sequential:
    """Return VGG-16: 138 million parameters, most of them in its dense layers.

    Parameters
    ----------
    num_classes, in_channels, hidden, rng
        As in `vgg11`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> vgg16(hidden=64, rng=0).features[0]
    Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """
    return _vgg(_VGG16, False, num_classes, in_channels, hidden, rng)


def vgg16_bn(
    num_classes: int = 1000, in_channels: int = 3, *, hidden: int = 4096, rng: RngLike = None
) -> Sequential:
    """Return VGG-16 with batch normalization after each convolution.

    Parameters
    ----------
    num_classes, in_channels, hidden, rng
        As in `vgg11`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> vgg16_bn(hidden=64, rng=0).features[1].num_features
    64
    """
    return _vgg(_VGG16, True, num_classes, in_channels, hidden, rng)


def _vgg(
    counts: Sequence[int],
    norm: bool,
    num_classes: int,
    in_channels: int,
    hidden: int,
    rng: RngLike,
) -> Sequential:
    generator, channels = as_generator(rng), in_channels
    features: list[Module] = []
    for count, width in zip(counts, _WIDTHS, strict=True):
        for _ in range(count):
            features.append(Conv2d(channels, width, 3, padding=1, rng=generator))
            features += [BatchNorm2d(width), ReLU()] if norm else [ReLU()]
            channels = width
        features.append(MaxPool2d(2))
    classifier = Sequential(
        *(Linear(channels * 7 * 7, hidden, rng=generator), ReLU(), Dropout(rng=generator)),
        *(Linear(hidden, hidden, rng=generator), ReLU(), Dropout(rng=generator)),
        Linear(hidden, num_classes, rng=generator),
    )
    layers = {"features": Sequential(*features), "avgpool": AdaptiveAvgPool2d(7)}
    model = Sequential({**layers, "flatten": Flatten(), "classifier": classifier})
    draw_he_normal(model, generator)
    return model
