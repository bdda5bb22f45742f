"""Names for the types of arguments, to annotate functions that hand them on.

Examples
--------
>>> import numpy as np
>>> import fastconv
>>> from fastconv.typing import Padding
>>> def blur(x, padding: Padding = "same"):
...     return fastconv.conv2d(x, np.full((1, 1, 3, 3), 1 / 9), padding=padding)
>>> blur(np.ones((1, 3, 3)), padding="valid").round(3)
array([[[1.]]])
"""

from fastconv.api.adaptive_pool2d import OutputSize
from fastconv.api.conv2d_backward import Gradient
from fastconv.core.activation import ActivationLike
from fastconv.core.conv_problem import Direction
from fastconv.core.geometry import IntPair, NamedPadding, Padding, PixelPadding
from fastconv.core.precision import Precision
from fastconv.core.public_names import public_names
from fastconv.nn.layers.padding_modes import PaddingMode
from fastconv.pooling.pool_registry import PoolAlgorithmName
from fastconv.select.conv_registry import ForwardAlgorithm, InputGradAlgorithm, WeightGradAlgorithm

__all__ = [
    "ActivationLike",
    "Direction",
    "ForwardAlgorithm",
    "Gradient",
    "InputGradAlgorithm",
    "IntPair",
    "NamedPadding",
    "OutputSize",
    "Padding",
    "PaddingMode",
    "PixelPadding",
    "PoolAlgorithmName",
    "Precision",
    "WeightGradAlgorithm",
]


def __dir__() -> list[str]:
    return public_names(globals())
