"""Pooling layers, and the step from images to rows of features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import recycling
from fastconv.arguments import as_batch
from fastconv.geometry import IntPair, Padding, as_int, as_pair, resolve_padding
from fastconv.nn.inputs import as_floats, as_image_batch
from fastconv.nn.module import Module
from fastconv.pooling.adaptive import (
    OutputSize,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    adaptive_max_pool2d,
    as_output_size,
)
from fastconv.pooling.maximum import as_asked, max_pool2d_grad, maxima, maximum_dtypes
from fastconv.pooling.mean import avg_pool2d, avg_pool2d_grad
from fastconv.pooling.placed import Places, max_pool2d_placed, max_pool2d_placed_grad
from fastconv.pooling.problem import not_given, problem_of

Array = NDArray[Any]


class MaxPool2d(Module):
    """The maximum of every window.

    Images are (N, C, H, W), or one (C, H, W). Integers and booleans keep their type, and have no
    gradient.

    Parameters
    ----------
    kernel_size, stride, dilation : int or (int, int)
        For height and width; `stride` is `kernel_size` unless given.
    padding : int, (int, int), ((top, bottom), (left, right)), or str
        As in `fastconv.max_pool2d`.
    return_indices : bool
        Whether `forward` returns the places of the maxima too, for `MaxUnpool2d`.
    ceil_mode : bool
        Whether a last window may overhang the end.
    wide_padding : bool
        Whether windows may lie wholly in the padding, as in `fastconv.max_pool2d`.

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
        padding: Padding = 0,
        dilation: IntPair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        wide_padding: bool = False,
    ) -> None:
        self.kernel_size, self.stride = checked_windows(kernel_size, stride)
        self.padding = checked_padding(padding)
        self.dilation = checked("dilation", dilation, 1)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode
        self.wide_padding = wide_padding

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their places as a second array."""
        return self._maxima(x, rectified=False)

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))``, which is ``forward(relu(x))``; `backward` is of both.

        A rectifier after the maxima has fewer elements to do than one before them. Their places
        are not the same, so this is for layers that do not return them.
        """
        return self._maxima(x, rectified=True)  # type: ignore[return-value]

    def _maxima(self, x: ArrayLike, rectified: bool) -> Array | tuple[Array, Array]:
        images, single = selectable(self, x)
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        problem = problem_of(images, maximum_dtypes(images)[0], *geometry, self.wide_padding)
        places = indices = None
        if self.return_indices:
            indices = recycling.empty(problem.output_shape, np.int64)
            y, places = maxima(images, problem, indices), Places(problem, indices)
        elif self.keeping and images.dtype.kind == "f":
            y, places = max_pool2d_placed(images, problem, rectified)
        else:
            y = maxima(images, problem)
            y = np.maximum(y, 0, out=y) if rectified else y
        self.keep(y[0] if single else y, places)
        return as_asked(y, indices, single)

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the places of the maxima."""
        grad, places = self.recall(grad)
        require_floats(self, grad)
        back = max_pool2d_placed_grad(grad.reshape(places.problem.output_shape), places)
        return back[0] if grad.ndim == 3 else back

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

    Images are (N, C, H, W), or one (C, H, W).

    Parameters
    ----------
    kernel_size, stride, dilation : int or (int, int)
        For height and width; `stride` is `kernel_size` unless given.
    padding : int, (int, int), ((top, bottom), (left, right)), or str
        As in `fastconv.avg_pool2d`.
    ceil_mode : bool
        Whether a last window may overhang the end.
    count_include_pad : bool
        Whether the zeros of the padding count.
    divisor_override : int, optional
        What sums are divided by, instead of how many positions they are of.
    wide_padding : bool
        Whether windows may lie wholly in the padding, as in `fastconv.avg_pool2d`.

    Examples
    --------
    >>> AvgPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: IntPair = 1,
        wide_padding: bool = False,
    ) -> None:
        self.kernel_size, self.stride = checked_windows(kernel_size, stride)
        self.padding = checked_padding(padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override
        self.dilation = checked("dilation", dilation, 1)
        self.wide_padding = wide_padding

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
            "count_include_pad": self.count_include_pad,
            "divisor_override": self.divisor_override,
            "dilation": self.dilation,
            "wide_padding": self.wide_padding,
        }

    def forward(self, x: ArrayLike) -> Array:
        """Return the means of `x`."""
        images = _floats(self, x)
        y = avg_pool2d(images, **self._options)
        self.keep(y, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, spread evenly over their windows."""
        grad, shape = self.recall(grad)
        return avg_pool2d_grad(grad, shape, **self._options)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of a window."""
        return math.prod(as_pair("kernel_size", self.kernel_size, 1)) * math.prod(output_shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """The mean of windows that are laid out so that the output has a given size.

    Images are (N, C, H, W), or one (C, H, W).

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        1 for the mean of the whole plane; None in a pair for the size of the input.

    Examples
    --------
    >>> AdaptiveAvgPool2d(1)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = checked_output(output_size)

    def forward(self, x: ArrayLike) -> Array:
        """Return the means of `x`."""
        images = _floats(self, x)
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


class AdaptiveMaxPool2d(Module):
    """The maximum of windows that are laid out so that the output has a given size.

    Images are (N, C, H, W), or one (C, H, W). Integers and booleans keep their type, and have no
    gradient.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        As in `AdaptiveAvgPool2d`.
    return_indices : bool
        Whether `forward` returns the places of the maxima too.

    Examples
    --------
    >>> AdaptiveMaxPool2d(1)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[3.]]]])
    """

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        self.output_size = checked_output(output_size)
        self.return_indices = return_indices

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their places as a second array."""
        images, single = selectable(self, x)
        given = images[0] if single else images
        if not (self.keeping or self.return_indices):
            return adaptive_max_pool2d(given, self.output_size)
        y, indices = adaptive_max_pool2d(given, self.output_size, True)
        self.keep(y, indices, given.shape)
        return (y, indices) if self.return_indices else y

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the places of the maxima."""
        grad, indices, shape = self.recall(grad)
        require_floats(self, grad)
        return max_pool2d_grad(grad, indices, shape)

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


def _floats(layer: Module, x: ArrayLike) -> Array:
    """Return images, or one of them, as a layer takes them."""
    images, single = as_image_batch(layer, x)
    return images[0] if single else images


def selectable(layer: Module, x: ArrayLike) -> tuple[Array, bool]:
    """Return images of which elements are picked, of any type but float16, and whether it is one.

    What is not floating point has no gradient, but is picked from all the same.
    """
    images, single = as_batch("x", x)
    if images.dtype.kind == "f":
        images = as_floats(layer, images)
    return np.ascontiguousarray(images), single


def require_floats(layer: Module, grad: Array) -> None:
    """Raise TypeError where the images were not floating point, whose type `grad` has."""
    if grad.dtype.kind != "f":
        raise TypeError(
            f"{type(layer).__name__} has no gradient for images of {grad.dtype}: convert them "
            "before, x.astype('float32')"
        )


def checked(name: str, value: Any, minimum: int) -> IntPair:
    """Return one integer, or a pair of them, as it was given."""
    pair = as_pair(name, value, minimum)
    return pair if hasattr(value, "__iter__") else pair[0]


def checked_windows(kernel_size: Any, stride: Any) -> tuple[IntPair, IntPair]:
    """Return kernel size and stride, which is the kernel size unless given."""
    kernel = checked("kernel_size", kernel_size, 1)
    return kernel, kernel if not_given(stride) else checked("stride", stride, 1)


def checked_padding(value: Any) -> Padding:
    """Return padding as it was given, if that is padding for some window."""
    sides = resolve_padding(value, (1, 1), (1, 1), (1, 1), (1, 1))
    if isinstance(value, str):
        return value
    (top, bottom), (left, right) = sides
    if (top, left) != (bottom, right):
        return sides
    return (top, left) if hasattr(value, "__iter__") else top


def checked_output(value: Any) -> OutputSize:
    """Return an output size as it was given."""
    size = as_output_size(value)
    return size if hasattr(value, "__iter__") else size[0]  # type: ignore[return-value]
