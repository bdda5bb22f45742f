"""Pooling layers, and the step from images to rows of features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arguments import result_dtypes
from fastconv.geometry import IntPair, as_int, as_pair
from fastconv.nn.inputs import as_floats, as_images
from fastconv.nn.module import Module
from fastconv.pooling.maximum import maxima
from fastconv.pooling.mean import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    avg_pool2d,
    avg_pool2d_grad,
)
from fastconv.pooling.placed import max_pool2d_placed, max_pool2d_placed_grad
from fastconv.pooling.problem import problem_of

Array = NDArray[Any]


class MaxPool2d(Module):
    """The maximum of every window.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or (int, int)
        For height and width; `stride` is `kernel_size` unless given.
    ceil_mode : bool
        Whether a last window may overhang the end.

    Examples
    --------
    >>> layer = MaxPool2d(2)
    >>> layer(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = _checked("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _checked("stride", stride, 1)
        self.padding = _checked("padding", padding, 0)
        self.dilation = _checked("dilation", dilation, 1)
        self.ceil_mode = ceil_mode

    def forward(self, x: ArrayLike) -> Array:
        """Return the maxima of `x`, (N, C, H, W)."""
        return self._maxima(x, rectified=False)

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))``, which is ``forward(relu(x))``; `backward` is of both.

        A rectifier after the maxima has fewer elements to do than one before them.
        """
        return self._maxima(x, rectified=True)

    def _maxima(self, x: ArrayLike, rectified: bool) -> Array:
        images = as_images(self, x)
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        problem = problem_of(images, result_dtypes(images)[0], *geometry)
        if not self.keeping:
            y = maxima(images, problem)
            return np.maximum(y, 0, out=y) if rectified else y
        y, places = max_pool2d_placed(images, problem, rectified)
        self.keep(y, places)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the places of the maxima."""
        grad, places = self.recall(grad)
        return max_pool2d_placed_grad(grad, places)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of a window."""
        return math.prod(as_pair("kernel_size", self.kernel_size, 1)) * math.prod(output_shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of every window.

    Parameters
    ----------
    kernel_size, stride, padding : int or (int, int)
        For height and width; `stride` is `kernel_size` unless given.
    ceil_mode : bool
        Whether a last window may overhang the end.
    count_include_pad : bool
        Whether the zeros of the padding count.

    Examples
    --------
    >>> AvgPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = _checked("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _checked("stride", stride, 1)
        self.padding = _checked("padding", padding, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    @property
    def _geometry(self) -> tuple[IntPair, IntPair, IntPair, bool, bool]:
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def forward(self, x: ArrayLike) -> Array:
        """Return the means of `x`, (N, C, H, W)."""
        images = as_images(self, x)
        y = avg_pool2d(images, *self._geometry)
        self.keep(y, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, spread evenly over their windows."""
        grad, shape = self.recall(grad)
        return avg_pool2d_grad(grad, shape, *self._geometry)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of a window."""
        return math.prod(as_pair("kernel_size", self.kernel_size, 1)) * math.prod(output_shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """The mean of windows that are laid out so that the output has a given size.

    Parameters
    ----------
    output_size : int or (int, int)
        1 for the mean of the whole plane.

    Examples
    --------
    >>> AdaptiveAvgPool2d(1)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(self, output_size: IntPair) -> None:
        self.output_size = _checked("output_size", output_size, 1)

    def forward(self, x: ArrayLike) -> Array:
        """Return the means of `x`, (N, C, H, W)."""
        images = as_images(self, x)
        y = adaptive_avg_pool2d(images, self.output_size)
        self.keep(y, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, spread evenly over their windows."""
        grad, shape = self.recall(grad)
        return adaptive_avg_pool2d_grad(grad, shape)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of the input."""
        return math.prod(input_shape)

    def extra_repr(self) -> str:
        """Return the size."""
        return f"output_size={self.output_size}"


class Flatten(Module):
    """Several axes become one: images become rows of features.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last of the axes.

    Examples
    --------
    >>> Flatten()(np.ones((2, 3, 4, 4))).shape
    (2, 48)
    """

    flops_per_output: ClassVar[int] = 0

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = as_int("start_dim", start_dim, -32)
        self.end_dim = as_int("end_dim", end_dim, -32)

    def forward(self, x: ArrayLike) -> Array:
        """Return a view of `x` with fewer axes."""
        array = as_floats(self, x)
        first, last = (d + array.ndim if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < array.ndim:
            raise ValueError(
                f"start_dim and end_dim must be axes of x in this order, got {self.start_dim} "
                f"and {self.end_dim} with shape {array.shape}"
            )
        flat = math.prod(array.shape[first : last + 1])
        y = array.reshape(*array.shape[:first], flat, *array.shape[last + 1 :])
        self.keep(y, array.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return `grad` in the input's shape."""
        grad, shape = self.recall(grad)
        return np.asarray(grad.reshape(shape))

    def extra_repr(self) -> str:
        """Return the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


def _checked(name: str, value: Any, minimum: int) -> IntPair:
    """Return one integer or a pair of them, as it was given."""
    pair = as_pair(name, value, minimum)
    return pair if hasattr(value, "__iter__") else pair[0]
