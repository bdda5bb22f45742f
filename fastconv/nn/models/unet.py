"""U-Net: features at several resolutions, for a class of each pixel.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image
segmentation", arXiv:1505.04597.
"""

from __future__ import annotations

from numpy.random import Generator

from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import RngLike, as_generator
from fastconv.nn.layers.activation_layers import ReLU
from fastconv.nn.layers.batch_norm import BatchNorm2d
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d, ConvTranspose2d
from fastconv.nn.layers.pooling_layers import MaxPool2d
from fastconv.nn.layers.rearranging_layers import Identity
from fastconv.nn.models.building_blocks import UnnamedConcat

# How often the resolution is halved.
_DEPTH = 4


def unet(
    num_classes: int = 2, in_channels: int = 3, width: int = 64, *, rng: RngLike = None
) -> Sequential:
    """Return U-Net: 31 million parameters.

    Convolutions are padded and followed by batch normalization, as is usual today, so the output is
    as large as the image. Parameters have the names of the usual PyTorch implementation,
    milesial/Pytorch-UNet with transposed convolutions.

    Parameters
    ----------
    num_classes : int
        Channels of the output.
    in_channels : int
        Channels of the images.
    width : int
        Channels at full resolution; twice as many at each half of it.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights.

    Returns
    -------
    Sequential
        For images (N, in_channels, H, W) whose height and width are multiples of 16.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    O. Ronneberger et al., "U-Net", arXiv:1505.04597.

    Examples
    --------
    >>> import numpy as np
    >>> unet(width=4, rng=0).eval()(np.zeros((1, 3, 32, 48), np.float32)).shape
    (1, 2, 32, 48)
    """
    generator, width = as_generator(rng), as_int("width", width, 1)
    first = Sequential({"double_conv": _convolutions(in_channels, width, generator)})
    last = Sequential({"conv": Conv2d(width, num_classes, 1, rng=generator)})
    return Sequential({"inc": first, "": _below(1, width, generator), "outc": last})


def _below(level: int, width: int, rng: Generator) -> Sequential:
    """Return what is done with `width` channels of one resolution: the levels below, and back."""
    up, wide = f"up{_DEPTH + 1 - level}", 2 * width
    down = Sequential(MaxPool2d(2), Sequential({"double_conv": _convolutions(width, wide, rng)}))
    deeper = {"": _below(level + 1, wide, rng)} if level < _DEPTH else {}
    around = Sequential(
        {
            f"down{level}.maxpool_conv": down,
            **deeper,
            f"{up}.up": ConvTranspose2d(wide, width, 2, 2, rng=rng),
        }
    )
    return Sequential(
        {
            "": UnnamedConcat(Identity(), around),
            f"{up}.conv.double_conv": _convolutions(wide, width, rng),
        }
    )


def _convolutions(inputs: int, outputs: int, rng: Generator) -> Sequential:
    """Return two 3x3 convolutions with batch normalization and ReLU."""
    return Sequential(
        *(Conv2d(inputs, outputs, 3, padding=1, bias=False, rng=rng), BatchNorm2d(outputs), ReLU()),
        *(Conv2d(outputs, outputs, 3, padding=1, bias=False, rng=rng), BatchNorm2d(outputs)),
        ReLU(),
    )
