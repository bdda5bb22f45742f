"""Activations: what makes layers more than one linear map."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.api.conv2d_backward import relu_gradient
from fastconv.core.geometry import as_int
from fastconv.nn.elementwise import in_pieces, put
from fastconv.nn.layer_arguments import LARGEST, RngLike, as_floats, as_generator, as_number
from fastconv.nn.module import Module
from fastconv.runtime import output_memory

Array = NDArray[Any]


class ReLU(Module):
    """``max(x, 0)``.

    Examples
    --------
    >>> layer = ReLU()
    >>> layer(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> layer.backward([10.0, 10.0])
    array([ 0., 10.])
    """

    flops_per_output: ClassVar[int] = 1

    def forward(self, x: ArrayLike) -> Array:
        """Return the positive part of `x`, of any shape."""
        array = as_floats(self, x)
        y = output_memory.empty(array.shape, array.dtype)
        in_pieces(lambda x, y: np.maximum(x, 0, out=y), array, y)
        self.keep(y, y, False)
        return y

    def leave(self, x: Array, y: Array | None) -> None:
        """Keep that a layer beside this one rectifies `x`, and the gradient too.

        `y` is the output; None where the layer after this one rectifies.
        """
        self.keep(x, y, True)

    def backward(self, grad: Array) -> Array:
        """Return `grad` where the output was positive."""
        return self._backward(grad, alone=True)

    def pass_on(self, grad: Array) -> Array:
        """Return what `backward` does, for a chain in which the layer before comes next.

        So what that one rectifies anyway need not be here.
        """
        return self._backward(grad, alone=False)

    def _backward(self, grad: Array, alone: bool) -> Array:
        grad, y, left = self.recall(grad)
        return grad if y is None or (left and not alone) else relu_gradient(grad, y)


class LeakyReLU(Module):
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

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = as_number("negative_slope", negative_slope, -LARGEST)

    def forward(self, x: ArrayLike) -> Array:
        """Return the activation of `x`, of any shape."""
        array = as_floats(self, x)
        y = output_memory.empty(array.shape, array.dtype)
        in_pieces(lambda x, y: self._scaled(x, x, y), array, y)
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array:
        """Return `grad`, multiplied by the slope where the input was negative."""
        grad, x = self.recall(grad)
        out = output_memory.empty(grad.shape, grad.dtype)
        in_pieces(self._scaled, grad, x, out)
        return out

    def _scaled(self, values: Array, x: Array, out: Array) -> None:
        """Write `values`, multiplied by the slope where `x` is not positive."""
        np.multiply(values, self.negative_slope, out=out)
        put(values, x > 0, out)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class SiLU(Module):
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

    def forward(self, x: ArrayLike) -> Array:
        """Return the activation of `x`, of any shape."""
        array = as_floats(self, x)
        y = output_memory.empty(array.shape, array.dtype)
        in_pieces(lambda x, y: np.multiply(x, _sigmoid(x), out=y), array, y)
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array:
        """Return ``grad * s * (1 + x * (1 - s))`` with s the sigmoid of x."""
        grad, x = self.recall(grad)
        out = output_memory.empty(grad.shape, grad.dtype)

        def piece(grad: Array, x: Array, out: Array) -> None:
            s = _sigmoid(x)
            np.multiply(grad, s * (1 + x * (1 - s)), out=out)

        in_pieces(piece, grad, x, out)
        return out


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = infinity gives the right limit, 0
        return np.asarray(1 / (1 + np.exp(-x)))


class Softmax(Module):
    """``exp(x) / sum of exp(x)`` along an axis: numbers as probabilities.

    Losses on logits need none: see `CrossEntropyLoss`.

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

    def __init__(self, dim: int = 1) -> None:
        self.dim = as_int("dim", dim, -32)

    def forward(self, x: ArrayLike) -> Array:
        """Return the probabilities."""
        array = as_floats(self, x)
        if not -array.ndim <= self.dim < array.ndim:
            raise ValueError(f"dim must be an axis of x, got {self.dim} with shape {array.shape}")
        y: Array = np.exp(array - array.max(axis=self.dim, keepdims=True))
        y /= y.sum(axis=self.dim, keepdims=True)
        self.keep(y, y)
        return y

    def backward(self, grad: Array) -> Array:
        """Return ``y * (grad - sum(grad * y))``."""
        grad, y = self.recall(grad)
        return np.asarray(y * (grad - np.sum(grad * y, axis=self.dim, keepdims=True)))

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


class Dropout(Module):
    """In training, drop every element with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        From 0 to 1.
    rng : numpy.random.Generator or int, optional
        Draws what is dropped.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15, 2014.

    Examples
    --------
    >>> layer = Dropout(0.5, rng=0)
    >>> layer(np.ones(4))
    array([2., 2., 2., 0.])
    >>> layer.eval()(np.ones(4))
    array([1., 1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: RngLike = None) -> None:
        self.p = as_number("p", p, 0, 1)
        self.rng = as_generator(rng)

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, some of it dropped; in evaluation `x` itself."""
        array = as_floats(self, x)
        if not self.training or self.p == 0:
            self.keep(array, None)
            return array
        factor = (self.rng.random(array.shape, np.float32) >= self.p).astype(array.dtype)
        if self.p < 1:
            factor *= 1 / (1 - self.p)
        y: Array = array * factor
        self.keep(y, factor)
        return y

    def backward(self, grad: Array) -> Array:
        """Return `grad` of what was not dropped, scaled alike."""
        grad, factor = self.recall(grad)
        return np.asarray(grad if factor is None else grad * factor)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"
