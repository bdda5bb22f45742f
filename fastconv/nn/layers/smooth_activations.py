"""Activation layers of exponential functions, and softmax."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.activation import ActivationLike
from fastconv.core.arguments import Array
from fastconv.core.geometry import as_int
from fastconv.kernels.normal_distribution import cumulative
from fastconv.nn.layer_arguments import LARGEST, as_floats, as_number
from fastconv.nn.layers.elementwise import Elementwise, put
from fastconv.nn.module import Module


class ELU(Elementwise):
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere.

    Parameters
    ----------
    alpha : float

    References
    ----------
    D. Clevert et al., "Fast and accurate deep network learning by exponential linear units",
    arXiv:1511.07289.

    Examples
    --------
    >>> ELU()(np.array([-100.0, 2.0]))
    array([-1.,  2.])
    """

    flops_per_output: ClassVar[int] = 3
    shown = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = as_number("alpha", alpha, -LARGEST)

    def _activate(self, x: Array, out: Array) -> None:
        np.multiply(self.alpha, np.expm1(x), out=out)
        put(x, x > 0, out)

    def _gradient(self, grad: Array, x: Array, out: Array) -> None:
        np.multiply(grad, self.alpha * np.exp(x), out=out)
        put(grad, x > 0, out)


class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    flops_per_output: ClassVar[int] = 3

    def _activate(self, x: Array, out: Array) -> None:
        out[...] = _sigmoid(x)

    def _slope(self, x: Array) -> Any:
        s = _sigmoid(x)
        return s * (1 - s)


class Tanh(Elementwise):
    """The hyperbolic tangent.

    Examples
    --------
    >>> Tanh()(np.array([-1000.0, 0.0, 1000.0]))
    array([-1.,  0.,  1.])
    """

    flops_per_output: ClassVar[int] = 1

    def _activate(self, x: Array, out: Array) -> None:
        np.tanh(x, out=out)

    def _slope(self, x: Array) -> Any:
        return 1 - np.tanh(x) ** 2


class SiLU(Elementwise):
    """``x / (1 + exp(-x))``, also called swish.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv:1606.08415.

    Examples
    --------
    >>> SiLU()(np.array([0.0, 100.0]))
    array([  0., 100.])
    """

    flops_per_output: ClassVar[int] = 4
    activation: ClassVar[ActivationLike] = "silu"

    def _activate(self, x: Array, out: Array) -> None:
        np.multiply(x, _sigmoid(x), out=out)

    def _slope(self, x: Array) -> Any:
        s = _sigmoid(x)
        return s * (1 + x * (1 - s))


def _sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))  # exp(-x) = infinity gives the right limit, 0


class GELU(Elementwise):
    """``x`` times the probability that a standard normal number is below it.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        The probability itself, or ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv:1606.08415.

    Examples
    --------
    >>> GELU()(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    >>> GELU("tanh")(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1588,  0.    ,  0.8412])
    """

    flops_per_output: ClassVar[int] = 8

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def _activate(self, x: Array, out: Array) -> None:
        if self.approximate == "tanh":
            np.multiply(x, 0.5 * (1 + self._tanh(x)), out=out)
        else:
            np.multiply(x, _below(x), out=out)

    def _slope(self, x: Array) -> Any:
        if self.approximate == "tanh":
            t = self._tanh(x)
            inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
            return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner
        density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return _below(x) + x * density

    @staticmethod
    def _tanh(x: Array) -> Any:
        return np.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))

    def extra_repr(self) -> str:
        """Return the argument, as PyTorch shows it."""
        return f"approximate={self.approximate!r}"


def _below(x: Array) -> Array:
    """Return the probability that a standard normal number is below each `x`."""
    out = np.empty(x.shape, x.dtype)
    cumulative.on(1, x.size, x.reshape(-1), out.reshape(-1))
    return out


class Softmax(Module):
    """``exp(x) / sum of exp(x)`` along an axis: numbers as probabilities.

    Losses on logits need none: see `CrossEntropyLoss`. The output is read-only in training.

    Parameters
    ----------
    dim : int
        The axis; 1 is that of classes or channels.

    Examples
    --------
    >>> Softmax(1)(np.array([[0.0, 0.0, np.log(2)]]))
    array([[0.25, 0.25, 0.5 ]])
    """

    flops_per_output: ClassVar[int] = 4
    shown = ("dim",)

    def __init__(self, dim: int = 1) -> None:
        self.dim = as_int("dim", dim, -32)

    def forward(self, x: ArrayLike) -> Array:
        """Return the probabilities."""
        array = as_floats(self, x)
        if not -array.ndim <= self.dim < array.ndim:
            raise ValueError(f"dim must be an axis of x, got {self.dim} with shape {array.shape}")
        y: Array = np.exp(array - array.max(axis=self.dim, keepdims=True))
        y /= y.sum(axis=self.dim, keepdims=True)
        self.keep_output(y)
        return y

    def backward(self, grad: Array) -> Array:
        """Return ``y * (grad - sum(grad * y))``."""
        grad, y = self.recall(grad)
        return np.asarray(y * (grad - np.sum(grad * y, axis=self.dim, keepdims=True)))
