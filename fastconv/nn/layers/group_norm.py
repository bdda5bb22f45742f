"""Normalization of each sample by itself: of groups of channels, or of the last axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_computed, as_flag
from fastconv.core.geometry import as_int, as_ints
from fastconv.kernels.channel_loops import CHANNEL, normalize, normalize_grad
from fastconv.nn.layer_arguments import as_floats, as_number, check_parameter
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.runtime import output_memory


class _RowNorm(Module):
    """Each row of numbers normalized, then scaled and shifted by learned numbers.

    The kernels are those of batch normalization: a row is one channel of one image.
    """

    flops_per_output = 8

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool, bias: bool) -> None:
        self.eps = as_number("eps", eps, 0)
        self.weight = Parameter(np.ones(shape, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if affine and bias else None

    def _normalized(self, array: Array, rows: int, shape: tuple[int, ...]) -> Array:
        """Return an array of so many rows, normalized; `shape` is the weight's beside it."""
        array = as_computed(array, array.dtype)
        channels = np.zeros(rows, CHANNEL)
        channels["weight"] = 1
        normal = output_memory.empty(array.shape, array.dtype)
        numbers = channels, array.size // max(rows, 1), self.eps, True, array.dtype.type(-np.inf)
        normalize.small(array.size, rows, array.reshape(-1), normal.reshape(-1), *numbers)
        if self.weight is None:
            self.keep_output(normal, channels, shape)
            return normal
        y = normal * self._parameter("weight").reshape(shape)
        if self.bias is not None:
            y += self._parameter("bias").reshape(shape)
        self.keep(y, normal, channels, shape)
        return y

    def _parameter(self, name: str) -> Array:
        """Return the numbers of a parameter, whose shape is still the right one."""
        parameter = getattr(self, name)
        check_parameter(self, name, parameter, self._shape)
        return parameter.value  # type: ignore[no-any-return]

    @property
    def _shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        """Add to the gradients of weight and bias; return the input's."""
        grad, normal, channels, shape = self.recall(grad)
        beside = (1,) * (grad.ndim - len(shape)) + shape
        axes = tuple(axis for axis, size in enumerate(beside) if size == 1)
        for parameter, part in ((self.weight, grad * normal), (self.bias, grad)):
            if parameter is not None:
                total = np.sum(part, axes, float, keepdims=True)
                parameter.accumulate(total.reshape(self._shape).astype(grad.dtype))
        if self.weight is not None:
            grad = grad * self._parameter("weight").reshape(shape)
        # Normalized numbers have mean 0 and standard deviation 1, so their gradient is that of a
        # second normalization, divided by the first one's standard deviation.
        channels["weight"], channels["mean"], channels["std"] = 1 / channels["std"], 0, 1
        out = output_memory.empty(grad.shape, grad.dtype)
        x = as_computed(normal, grad.dtype).reshape(-1)
        rows, flat = len(channels), as_computed(grad, grad.dtype).reshape(-1)
        numbers = channels, grad.size // max(rows, 1), True, False
        normalize_grad.small(grad.size, rows, flat, x, x, out.reshape(-1), *numbers)
        return out


class GroupNorm(_RowNorm):
    """Normalize each sample's groups of channels to mean 0 and variance 1, then scale and shift.

    Unlike `BatchNorm2d` it is the same for any batch, and in training and evaluation.

    Parameters
    ----------
    num_groups : int
        1 for all channels together; `num_channels` for each by itself (instance normalization).
    num_channels : int
        A multiple of `num_groups`.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are `weight` and `bias`.

    Attributes
    ----------
    weight, bias : Parameter, (num_channels,), or None
        Ones and zeros at first.

    References
    ----------
    Y. Wu, K. He, "Group normalization", arXiv:1803.08494.

    Examples
    --------
    >>> GroupNorm(1, 2)(np.array([[[1, 3], [1, 3]]], np.float32)).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        self.num_groups = as_int("num_groups", num_groups, 1)
        self.num_channels = as_int("num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"num_groups must divide num_channels={num_channels}, got {num_groups}"
            )
        super().__init__((self.num_channels,), eps, as_flag("affine", affine), True)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.num_channels,)

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, (N, num_channels, ...), normalized."""
        array = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        if array.ndim < 2 or array.shape[1] != self.num_channels:
            raise ValueError(
                f"x must have {self.num_channels} channels for this GroupNorm, "
                f"(N, {self.num_channels}, ...), got shape {array.shape}"
            )
        shape = self.num_channels, *[1] * (array.ndim - 2)
        return self._normalized(array, len(array) * self.num_groups, shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        learned = self.weight is not None
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, "
            f"affine={learned}, bias={learned}"
        )


class LayerNorm(_RowNorm):
    """Normalize the last axes of each sample to mean 0 and variance 1, then scale and shift.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the axes: ``C`` for (..., C), ``(C, H, W)`` for whole images.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there are `weight` and `bias`.
    bias : bool
        Whether there is a `bias` beside the weight.

    Attributes
    ----------
    weight, bias : Parameter of `normalized_shape`, or None
        Ones and zeros at first.

    References
    ----------
    J. Ba et al., "Layer normalization", arXiv:1607.06450.

    Examples
    --------
    >>> LayerNorm(2)(np.array([[1, 3], [10, 30]], np.float32)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        several = hasattr(normalized_shape, "__len__")
        sizes = normalized_shape if several else (normalized_shape,)
        self.normalized_shape = as_ints("normalized_shape", sizes, np.size(sizes) or 1, 1)
        affine = as_flag("elementwise_affine", elementwise_affine)
        super().__init__(self._shape, eps, affine, as_flag("bias", bias))

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.normalized_shape

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, (..., *normalized_shape), normalized."""
        array = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        shape = self.normalized_shape
        if array.shape[-len(shape) :] != shape:
            raise ValueError(
                f"x must have a shape that ends in {shape} for this LayerNorm, got {array.shape}"
            )
        return self._normalized(array, array.size // math.prod(shape), shape)

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.weight is not None}, bias={self.bias is not None}"
        )
