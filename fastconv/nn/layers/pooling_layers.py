"""Pooling and unpooling layers, and flattening images to rows of features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

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
from fastconv.api.max_unpool2d import max_unpool2d, max_unpool2d_grad
from fastconv.core.arguments import Array, as_flag
from fastconv.core.geometry import IntPair, Padding, PixelPadding, as_int, as_pair
from fastconv.core.pool_problem import problem_of
from fastconv.nn.layer_arguments import (
    as_floats,
    as_given_padding,
    as_given_pair,
    as_given_windows,
    as_images,
    require_float_gradient,
)
from fastconv.nn.module import Module
from fastconv.runtime import output_memory


class _Windowed(Module):
    """What pooling of windows of a given size has in common."""

    shown: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None,
        padding: Padding,
        dilation: IntPair,
        ceil_mode: bool,
        wide_padding: bool,
    ) -> None:
        self.kernel_size, self.stride = as_given_windows(kernel_size, stride)
        self.padding = as_given_padding(padding)
        self.dilation = as_given_pair("dilation", dilation, 1)
        self.ceil_mode = as_flag("ceil_mode", ceil_mode)
        self.wide_padding = as_flag("wide_padding", wide_padding)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of a window."""
        return math.prod(as_pair("kernel_size", self.kernel_size, 1)) * math.prod(output_shape)


class _Adaptive(Module):
    """What pooling to a given size has in common."""

    shown = ("output_size",)

    def __init__(self, output_size: OutputSize) -> None:
        size = as_output_size(output_size)
        is_pair = hasattr(output_size, "__iter__")
        self.output_size: OutputSize = size if is_pair else size[0]  # type: ignore[assignment]

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return one for each element of the input."""
        return math.prod(input_shape)


class MaxPool2d(_Windowed):
    """The maximum of every window.

    Images are (N, C, H, W), or one (C, H, W). Integers and booleans keep their type, and have no
    gradient.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, wide_padding
        As in `fastconv.max_pool2d`.
    return_indices : bool
        Whether `forward` returns the indices of the maxima too, for `MaxUnpool2d`.

    Examples
    --------
    >>> layer = MaxPool2d(2)
    >>> layer(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    shown = (*_Windowed.shown, "dilation", "ceil_mode")
    shown_if_changed: ClassVar[dict[str, Any]] = {"return_indices": False, "wide_padding": False}

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
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, wide_padding)
        self.return_indices = as_flag("return_indices", return_indices)

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their indices as a second array."""
        return self._maxima(x, relu=False)

    def forward_relu(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))``, which is ``forward(relu(x))``; `backward` is that of both.

        After pooling there are fewer elements to clip than before. The indices are not the same,
        so this is for layers that do not return them.
        """
        return self._maxima(x, relu=True)  # type: ignore[return-value]

    def _maxima(self, x: ArrayLike, relu: bool) -> Array | tuple[Array, Array]:
        given = as_images(self, x, any_type=True)
        single = given.ndim == 3
        images = given[np.newaxis] if single else given
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        problem = problem_of(images, maximum_dtypes(images)[0], *geometry, self.wide_padding)
        argmax = indices = None
        if self.return_indices:
            indices = output_memory.empty(problem.output_shape, np.int64)
            y = maxima(images, problem, indices)
            # A copy, as the caller may change the indices.
            argmax = Argmax(problem, indices.copy()) if self.keeping else None
        elif self.keeping and images.dtype.kind == "f":
            y, argmax = max_pool2d_training(images, problem, relu)
        else:
            y = maxima(images, problem)
            y = np.maximum(y, 0, out=y) if relu else y
        if relu and self.keeping:  # `argmax` may hold the output, for the gradient of ReLU
            y.setflags(write=False)
        self.keep(y[0] if single else y, argmax)
        return maxima_returned(y, indices, y.dtype, single)

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the argmax of every window, zeros elsewhere."""
        grad, argmax = self.recall(grad)
        require_float_gradient(self, grad)
        back = max_pool2d_training_grad(grad.reshape(argmax.problem.output_shape), argmax)
        return back[0] if grad.ndim == 3 else back


class AvgPool2d(_Windowed):
    """The mean of every window.

    Images are (N, C, H, W), or one (C, H, W).

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in `fastconv.avg_pool2d`.
    dilation, wide_padding
        As in `fastconv.avg_pool2d`.

    Examples
    --------
    >>> AvgPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    shown_if_changed: ClassVar[dict[str, Any]] = {
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
        "dilation": 1,
        "wide_padding": False,
    }

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
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, wide_padding)
        self.count_include_pad = as_flag("count_include_pad", count_include_pad)
        self.divisor_override = as_divisor(divisor_override)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self.shown, *self.shown_if_changed)}

    def forward(self, x: ArrayLike) -> Array:
        """Return the means of `x`."""
        images = as_images(self, x)
        y = avg_pool2d(images, **self._options)
        self.keep(y, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, spread evenly over their windows."""
        grad, shape = self.recall(grad)
        return avg_pool2d_grad(grad, shape, **self._options)


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
        images = as_images(self, x)
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

    shown_if_changed: ClassVar[dict[str, Any]] = {"return_indices": False}

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = as_flag("return_indices", return_indices)

    def forward(self, x: ArrayLike) -> Any:
        """Return the maxima of `x`, and with `return_indices` their indices as a second array."""
        images = as_images(self, x, any_type=True)
        if not (self.keeping or self.return_indices):
            return adaptive_max_pool2d(images, self.output_size)
        y, indices = adaptive_max_pool2d(images, self.output_size, True)
        if self.keeping:  # a copy, as the caller may change the indices
            self.keep(y, indices.copy() if self.return_indices else indices, images.shape)
        return (y, indices) if self.return_indices else y

    def backward(self, grad: Array) -> Array:
        """Return the gradients at the argmax of every window, zeros elsewhere."""
        grad, indices, shape = self.recall(grad)
        require_float_gradient(self, grad)
        return max_pool2d_grad(grad, indices, shape)


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
        self, kernel_size: IntPair, stride: IntPair | None = None, padding: PixelPadding = 0
    ) -> None:
        self.kernel_size, self.stride = as_given_windows(kernel_size, stride)
        self.padding: PixelPadding = as_given_padding(padding)  # type: ignore[assignment]

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


class Flatten(Module):
    """Merge several axes into one: images become rows of features.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last of the merged axes.

    Examples
    --------
    >>> Flatten()(np.ones((2, 3, 4, 4))).shape
    (2, 48)
    """

    shown = ("start_dim", "end_dim")

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
