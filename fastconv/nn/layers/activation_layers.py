"""Activation layers, softmax and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.api.conv2d_backward import relu_gradient
from fastconv.core.arguments import Array
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import LARGEST, RngLike, as_floats, as_generator, as_number
from fastconv.nn.module import Module
from fastconv.runtime import output_memory
from fastconv.runtime.threads import run_tasks

# Elements of a chunk: 128 KiB of float32.
_CHUNK = 2**15


def in_chunks(function: Callable[..., Any], *arrays: Array) -> None:
    """Call ``function(*chunks)`` on flat chunks of C-contiguous arrays of one shape, by threads.

    On a chunk that stays in a core's cache, NumPy's operations after the first do not wait for
    memory. Chunks depend on the size alone: results are bitwise identical for any thread count.
    """
    size = arrays[0].size
    if size <= _CHUNK and arrays[0].ndim:  # NumPy makes scalars of what has no dimensions
        function(*arrays)
        return
    flat = [array.reshape(-1) for array in arrays]

    def one(start: int) -> None:
        function(*(array[start : start + _CHUNK] for array in flat))

    run_tasks(one, range(0, size, _CHUNK))


def put(values: Array, mask: NDArray[np.bool_], out: Array) -> None:
    """Write `values` to `out` where `mask` is true; all three have one shape.

    The same as ``np.copyto(out, values, where=mask)``, but computed on bit masks: five times
    faster where the mask is random.

    >>> out = np.zeros(3)
    >>> put(np.array([1.0, np.inf, np.nan]), np.array([True, False, True]), out)
    >>> out
    array([ 1.,  0., nan])
    """
    integer = f"i{out.itemsize}"
    bits = mask.astype(integer)
    np.negative(bits, out=bits)  # all ones, or all zeros
    old = out.view(integer)
    bits &= old ^ values.view(integer)
    old ^= bits


class _Activation(Module):
    """A function of each element: `_activate` and `_gradient` compute a chunk of them."""

    def _activate(self, x: Array, out: Array) -> None:
        """Write the activation of `x` to `out`."""
        raise NotImplementedError

    def _gradient(self, grad: Array, x: Array, out: Array) -> None:
        """Write `grad` times the derivative at `x` to `out`."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        """Return the activation of `x`, of any shape."""
        array = as_floats(self, x)
        y = output_memory.empty(array.shape, array.dtype)
        in_chunks(self._activate, array, y)
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array:
        """Return `grad` times the derivative at the input."""
        grad, x = self.recall(grad)
        out = output_memory.empty(grad.shape, grad.dtype)
        in_chunks(self._gradient, grad, x, out)
        return out


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


class LeakyReLU(_Activation):
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

    def _activate(self, x: Array, out: Array) -> None:
        """Write `x`, multiplied by the slope where it is not positive, to `out`."""
        self._gradient(x, x, out)

    def _gradient(self, grad: Array, x: Array, out: Array) -> None:
        """Write `grad`, multiplied by the slope where `x` is not positive, to `out`."""
        np.multiply(grad, self.negative_slope, out=out)
        put(grad, x > 0, out)


class SiLU(_Activation):
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

    def _activate(self, x: Array, out: Array) -> None:
        """Write ``x * sigmoid(x)`` to `out`."""
        np.multiply(x, _sigmoid(x), out=out)

    def _gradient(self, grad: Array, x: Array, out: Array) -> None:
        """Write ``grad * s * (1 + x * (1 - s))`` to `out`, with s the sigmoid of x."""
        s = _sigmoid(x)
        np.multiply(grad, s * (1 + x * (1 - s)), out=out)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = infinity gives the right limit, 0
        return np.asarray(1 / (1 + np.exp(-x)))


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


class Dropout(Module):
    """In training, drop every element with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        From 0 to 1.
    rng : numpy.random.Generator or int, optional
        Draws which elements are dropped.

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

    shown = ("p",)

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
        """Return `grad` of the elements that were not dropped, scaled alike."""
        grad, factor = self.recall(grad)
        return np.asarray(grad if factor is None else grad * factor)
