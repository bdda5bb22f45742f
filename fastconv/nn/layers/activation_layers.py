"""Activation layers of straight lines: ReLU and its relatives."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.conv2d_backward import relu_gradient
from fastconv.core.activation import ActivationLike
from fastconv.core.arguments import Array
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import LARGEST, as_floats, as_number
from fastconv.nn.layers.elementwise import Elementwise, in_chunks, put
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.runtime import output_memory


class ReLU(Module):
    """``max(x, 0)``.

    Its output is read-only in training, because `backward` needs it unchanged.

    Examples
    --------
    >>> layer = ReLU()
    >>> layer(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> layer.backward([10.0, 10.0])
    array([ 0., 10.])
    """

    flops_per_output: ClassVar[int] = 1
    #: The layer as an activation of `fastconv.plan_conv2d`.
    activation: ClassVar[ActivationLike] = "relu"

    def forward(self, x: ArrayLike) -> Array:
        """Return the positive part of `x`, of any shape."""
        array = as_floats(self, x)
        y = output_memory.empty(array.shape, array.dtype)
        in_chunks(lambda x, y: np.maximum(x, 0, out=y), array, y)
        self.keep_output(y, False)
        return y

    def fuse(self, x: Array, y: Array | None) -> None:
        """Note that a neighbour in a `Sequential` computes this layer, and its gradient.

        `y` is the output; None where the neighbour is the layer after this one.
        """
        self.keep(x, y, True)

    def backward(self, grad: Array) -> Array:
        """Return `grad` where the output was positive."""
        grad, y, _ = self.recall(grad)
        return grad if y is None else relu_gradient(grad, y)

    def backward_fused(self, grad: Array) -> Array:
        """Return the gradient for the layer before, which applies this one's if it is fused."""
        grad, y, fused = self.recall(grad)
        return grad if y is None or fused else relu_gradient(grad, y)


class LeakyReLU(Elementwise):
    """``x`` where it is positive, ``negative_slope * x`` elsewhere.

    Parameters
    ----------
    negative_slope : float

    Examples
    --------
    >>> LeakyReLU(0.1)(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    flops_per_output: ClassVar[int] = 2
    shown = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = as_number("negative_slope", negative_slope, -LARGEST)

    @property
    def activation(self) -> ActivationLike:
        """The layer as an activation of `fastconv.plan_conv2d`."""
        return ("leaky_relu", self.negative_slope)

    def _activate(self, x: Array, out: Array) -> None:
        """Write `x`, multiplied by the slope where it is not positive, to `out`."""
        self._gradient(x, x, out)

    def _gradient(self, grad: Array, x: Array, out: Array) -> None:
        """Write `grad`, multiplied by the slope where `x` is not positive, to `out`."""
        np.multiply(grad, self.negative_slope, out=out)
        put(grad, x > 0, out)


class PReLU(Module):
    """``x`` where it is positive, ``weight * x`` elsewhere, with learned weights.

    Parameters
    ----------
    num_parameters : int
        1 for one weight, or the number of channels for a weight each.
    init : float
        The weights at first.

    Attributes
    ----------
    weight : Parameter, (num_parameters,)

    References
    ----------
    K. He et al., "Delving deep into rectifiers", arXiv:1502.01852.

    Examples
    --------
    >>> PReLU()(np.array([-1.0, 2.0], np.float32))
    array([-0.25,  2.  ], dtype=float32)
    """

    flops_per_output: ClassVar[int] = 2
    shown = ("num_parameters",)

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters = as_int("num_parameters", num_parameters, 1)
        first = as_number("init", init, -LARGEST)
        self.weight = Parameter(np.full(self.num_parameters, first, np.float32))

    def _weight(self, x: Array) -> Array:
        """Return the weights, to be broadcast to `x`: one, or one a channel of axis 1."""
        if self.num_parameters == 1:
            return self.weight.value
        if x.ndim < 2 or x.shape[1] != self.num_parameters:
            raise ValueError(
                f"x must have {self.num_parameters} channels for this PReLU, "
                f"(N, {self.num_parameters}, ...), got shape {x.shape}"
            )
        return self.weight.value.reshape(-1, *[1] * (x.ndim - 2))

    def forward(self, x: ArrayLike) -> Array:
        """Return the activation of `x`: of any shape, or (N, num_parameters, ...)."""
        array = as_floats(self, x, self.weight.dtype)
        y = np.asarray(np.where(array > 0, array, self._weight(array) * array))
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array:
        """Add to the gradient of the weights; return the input's."""
        grad, x = self.recall(grad)
        along = np.where(x > 0, 0, grad * x)
        axes = tuple(i for i in range(x.ndim) if i != 1 or self.num_parameters == 1)
        total = np.sum(along, axes, float)
        self.weight.accumulate(total.reshape(self.num_parameters).astype(x.dtype))
        return np.asarray(np.where(x > 0, grad, self._weight(x) * grad))


class Hardtanh(Elementwise):
    """``min(max(x, min_val), max_val)``.

    Parameters
    ----------
    min_val, max_val : float

    Examples
    --------
    >>> Hardtanh()(np.array([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    """

    flops_per_output: ClassVar[int] = 2
    shown: ClassVar[tuple[str, ...]] = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = as_number("min_val", min_val, -LARGEST)
        self.max_val = as_number("max_val", max_val, -LARGEST)
        if not self.min_val < self.max_val:
            raise ValueError(f"max_val must be above min_val={min_val!r}, got {max_val!r}")

    @property
    def activation(self) -> ActivationLike:
        """The layer as an activation of `fastconv.plan_conv2d`."""
        return ("clip", self.min_val, self.max_val)

    def _activate(self, x: Array, out: Array) -> None:
        np.clip(x, self.min_val, self.max_val, out=out)

    def _slope(self, x: Array) -> Any:
        return (x > self.min_val) & (x < self.max_val)


class ReLU6(Hardtanh):
    """``min(max(x, 0), 6)``.

    References
    ----------
    A. Howard et al., "MobileNets", arXiv:1704.04861.

    Examples
    --------
    >>> ReLU6()(np.array([-1.0, 2.0, 8.0]))
    array([0., 2., 6.])
    """

    shown = ()

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)


class Hardsigmoid(Elementwise):
    """``min(max(x + 3, 0), 6) / 6``.

    Examples
    --------
    >>> Hardsigmoid()(np.array([-3.0, 0.0, 3.0]))
    array([0. , 0.5, 1. ])
    """

    flops_per_output: ClassVar[int] = 4

    def _activate(self, x: Array, out: Array) -> None:
        np.divide(np.clip(x + 3, 0, 6), 6, out=out)

    def _slope(self, x: Array) -> Any:
        return ((x > -3) & (x < 3)) * x.dtype.type(1 / 6)


class Hardswish(Elementwise):
    """``x * min(max(x + 3, 0), 6) / 6``.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", arXiv:1905.02244.

    Examples
    --------
    >>> Hardswish()(np.array([-4.0, 1.5, 4.0]))
    array([-0.   ,  1.125,  4.   ])
    """

    flops_per_output: ClassVar[int] = 5
    activation: ClassVar[ActivationLike] = "hard_swish"

    def _activate(self, x: Array, out: Array) -> None:
        np.multiply(x, np.clip(x + 3, 0, 6) / 6, out=out)

    def _slope(self, x: Array) -> Any:
        return np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + x.dtype.type(0.5)))
