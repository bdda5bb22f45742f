"""Pooling layers, and the step from images to rows of features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.api.adaptive_pool2d import (
    OutputSize,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    adaptive_max_pool2d,
    as_output_size,
)
from fastconv.api.avg_pool2d import as_divisor, avg_pool2d, avg_pool2d_grad
from fastconv.api.max_pool2d import max_pool2d_grad, maxima, maxima_returned, maximum_dtypes
from fastconv.api.max_pool_training import Argmax, max_pool2d_training, max_pool2d_training_grad
from fastconv.core.arguments import as_flag
from fastconv.core.geometry import IntPair, Padding, as_int, as_pair
from fastconv.core.pool_problem import problem_of
from fastconv.nn.layer_arguments import (
    as_floats,
    as_given_padding,
    as_given_pair,
    as_given_windows,
    as_image_batch,
    as_images_of_any_type,
    require_float_gradient,
)
from fastconv.nn.module import Module
from fastconv.runtime import output_memory

Array = NDArray[Any]


class _Windowed(Module):
    """What pooling of windows of a given size has in common."""

    kernel_size: IntPair

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of a window."""
        return math.prod(as_pair("kernel_size", self.kernel_size, 1)) * math.prod(output_shape)


class _Adaptive(Module):
    """What pooling to a given size has in common."""

    def __init__(self, output_size: OutputSize) -> None:
        size = as_output_size(output_size)
        is_pair = hasattr(output_size, "__iter__")
        self.output_size: OutputSize = size if is_pair else size[0]  # type: ignore[assignment]

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of the input."""
        return math.prod(input_shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return f"output_size={self.output_size}"


class MaxPool2d(_Windowed):
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
        Whether `forward` returns the indices of the maxima too, for `MaxUnpool2d`.
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
        self.kernel_size, self.stride = as_given_windows(kernel_size, stride)
        self.padding = as_given_padding(padding)
        self.dilation = as_given_pair("dilation", dilation, 1)
        self.return_indices = as_flag("return_indices", return_indices)
        self.ceil_mode = as_flag("ceil_mode", ceil_mode)
        self.wide_padding = as_flag("wide_padding", wide_padding)

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their indices as a second array."""
        return self._maxima(x, rectified=False)

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))``, which is ``forward(relu(x))``; `backward` is of both.

        A ReLU after the maxima has fewer elements to do than one before them. Their indices are
        not the same, so this is for layers that do not return them.
        """
        return self._maxima(x, rectified=True)  # type: ignore[return-value]

    def _maxima(self, x: ArrayLike, rectified: bool) -> Array | tuple[Array, Array]:
        images, single = as_images_of_any_type(self, x)
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        problem = problem_of(images, maximum_dtypes(images)[0], *geometry, self.wide_padding)
        places = indices = None
        if self.return_indices:
            indices = output_memory.empty(problem.output_shape, np.int64)
            y = maxima(images, problem, indices)
            # A copy, as the indices are the caller's to change.
            places = Argmax(problem, indices.copy()) if self.keeping else None
        elif self.keeping and images.dtype.kind == "f":
            y, places = max_pool2d_training(images, problem, rectified)
        else:
            y = maxima(images, problem)
            y = np.maximum(y, 0, out=y) if rectified else y
        self.keep(y[0] if single else y, places)
        return maxima_returned(y, indices, y.dtype, single)

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the indices of the maxima."""
        grad, places = self.recall(grad)
        require_float_gradient(self, grad)
        back = max_pool2d_training_grad(grad.reshape(places.problem.output_shape), places)
        return back[0] if grad.ndim == 3 else back

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        ) + _unusual(self, return_indices=False, wide_padding=False)


class AvgPool2d(_Windowed):
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
        self.kernel_size, self.stride = as_given_windows(kernel_size, stride)
        self.padding = as_given_padding(padding)
        self.ceil_mode = as_flag("ceil_mode", ceil_mode)
        self.count_include_pad = as_flag("count_include_pad", count_include_pad)
        self.divisor_override = as_divisor(divisor_override)
        self.dilation = as_given_pair("dilation", dilation, 1)
        self.wide_padding = as_flag("wide_padding", wide_padding)

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

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return text + _unusual(
            self,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
            dilation=1,
            wide_padding=False,
        )


class AdaptiveAvgPool2d(_Adaptive):
    """The mean of windows that divide the input so that the output has a given size.

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


class AdaptiveMaxPool2d(_Adaptive):
    """The maximum of windows that divide the input so that the output has a given size.

    Images are (N, C, H, W), or one (C, H, W). Integers and booleans keep their type, and have no
    gradient.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        As in `AdaptiveAvgPool2d`.
    return_indices : bool
        Whether `forward` returns the indices of the maxima too.

    Examples
    --------
    >>> AdaptiveMaxPool2d(1)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[3.]]]])
    """

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = as_flag("return_indices", return_indices)

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their indices as a second array."""
        images, single = as_images_of_any_type(self, x)
        given = images[0] if single else images
        if not (self.keeping or self.return_indices):
            return adaptive_max_pool2d(given, self.output_size)
        y, indices = adaptive_max_pool2d(given, self.output_size, True)
        if self.keeping:  # a copy, as the indices are the caller's to change
            self.keep(y, indices.copy() if self.return_indices else indices, given.shape)
        return (y, indices) if self.return_indices else y

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the indices of the maxima."""
        grad, indices, shape = self.recall(grad)
        require_float_gradient(self, grad)
        return max_pool2d_grad(grad, indices, shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return super().extra_repr() + _unusual(self, return_indices=False)


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


def _unusual(layer: Module, **usual: Any) -> str:
    """Return the arguments that are not as usual, to go on a list of others."""
    given = {name: getattr(layer, name) for name in usual}
    return "".join(f", {name}={given[name]}" for name in usual if given[name] != usual[name])
