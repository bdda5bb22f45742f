"""Max unpooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.api.max_unpool2d import max_unpool2d, max_unpool2d_grad
from fastconv.core.geometry import IntPair, Padding
from fastconv.nn.layer_arguments import (
    as_given_padding,
    as_given_windows,
    as_images,
    require_float_gradient,
)
from fastconv.nn.module import Module

Array = NDArray[Any]


class MaxUnpool2d(Module):
    """Partial inverse of `MaxPool2d`: planes of zeros with the maxima at their indices.

    It takes the two results of ``MaxPool2d(..., return_indices=True)``, so it cannot stand in a
    `Sequential`: call it in the `forward` of a module of your own.

    Parameters
    ----------
    kernel_size, stride : int or (int, int)
        Those of the pooling; `stride` is `kernel_size` unless given.
    padding : int, (int, int) or ((top, bottom), (left, right))
        That of the pooling.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> maxima, indices = nn.MaxPool2d(2, return_indices=True)(np.arange(4.0).reshape(1, 1, 2, 2))
    >>> MaxUnpool2d(2)(maxima, indices)
    array([[[[0., 0.],
             [0., 3.]]]])
    """

    shown = ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0
    ) -> None:
        self.kernel_size, self.stride = as_given_windows(kernel_size, stride)
        self.padding = as_given_padding(padding)

    def __call__(  # type: ignore[override]
        self, x: ArrayLike, indices: ArrayLike, output_size: tuple[int, ...] | None = None
    ) -> Array:
        """Return the planes for maxima `x` with those indices."""
        return self.forward(x, indices, output_size)

    def forward(  # type: ignore[override]
        self, x: ArrayLike, indices: ArrayLike, output_size: tuple[int, ...] | None = None
    ) -> Array:
        """Return the planes for maxima `x` with those indices.

        `output_size` is as in `fastconv.max_unpool2d`.
        """
        maxima = as_images(self, x, any_type=True)
        geometry = self.kernel_size, self.stride, self.padding
        y = max_unpool2d(maxima, indices, *geometry, output_size)
        if self.keeping:  # a copy, as the caller may change the indices
            self.keep(y, np.array(indices))
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradient of the maxima: that at their indices."""
        grad, indices = self.recall(grad)
        require_float_gradient(self, grad)
        return max_unpool2d_grad(grad, indices)
