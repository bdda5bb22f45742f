"""The fully connected layer."""

from __future__ import annotations

import numpy as np
from numba.core import config
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_computed
from fastconv.core.geometry import as_int
from fastconv.kernels.dense_loops import product, weighted_sums
from fastconv.nn.init import default_parameters
from fastconv.nn.layer_arguments import RngLike, as_floats, check_parameter
from fastconv.nn.module import Module
from fastconv.runtime import output_memory
from fastconv.runtime.blas import single_threaded
from fastconv.runtime.threads import run_tasks

# Multiplications worth a task of their own: a Python thread wakes in a tenth of a millisecond.
_TASK_PRODUCTS = 2**23
# Up to so many rows the time of a product is that of reading the weights.
_FEW_ROWS = 4
# Products per unit of work, by which `small` decides on threads.
_LANES = 16
# Limits of the register tiles. Every few columns of the second matrix read all of the first one;
# and if the second is not transposed, only a few cache lines of each row are read at a time, for
# which BLAS takes 0.7 times as long where they come from memory.
_MOST_BYTES_A, _MOST_BYTES_B = 2**24, 2**23


class Linear(Module):
    """Fully connected layer: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rng : numpy.random.Generator or int, optional
        Draws the initial weights: uniform within ±1 / sqrt(in_features), as in PyTorch.

    Attributes
    ----------
    weight : Parameter, (out_features, in_features)
    bias : Parameter, (out_features,), or None
    input_grad : bool
        As in `Conv2d`.

    Examples
    --------
    >>> layer = Linear(3, 2, rng=0)
    >>> layer.weight.data[...], layer.bias.data[...] = 1, [0, 10]
    >>> layer(np.ones((1, 3), np.float32))
    array([[ 3., 13.]], dtype=float32)
    >>> layer.backward(np.ones((1, 2)))
    array([[2., 2., 2.]], dtype=float32)
    """

    shown = ("in_features", "out_features")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: RngLike = None
    ) -> None:
        self.in_features = as_int("in_features", in_features, 1)
        self.out_features = as_int("out_features", out_features, 1)
        shape = self.out_features, self.in_features
        self.weight, self.bias = default_parameters(shape, self.out_features, bias, rng)
        self.input_grad = True

    def forward(self, x: ArrayLike) -> Array:
        """Return the outputs for `x`, (..., in_features)."""
        array = as_floats(self, x, self.weight.dtype)
        if array.ndim < 1 or array.shape[-1] != self.in_features:
            hint = ": put Flatten() before" if array.ndim > 2 else ""
            raise ValueError(
                f"x must have shape (..., {self.in_features}) for this Linear, "
                f"got {array.shape}{hint}"
            )
        check_parameter(self, "weight", self.weight, (self.out_features, self.in_features))
        if self.bias is not None:
            check_parameter(self, "bias", self.bias, (self.out_features,))
        rows = as_computed(array.reshape(-1, self.in_features), array.dtype)
        if len(rows) <= _FEW_ROWS:
            sums = output_memory.empty((len(rows), self.out_features), rows.dtype)
            bias = rows[:0].reshape(-1) if self.bias is None else self.bias.value
            work = len(rows) * self.weight.size // _LANES
            weighted_sums.small(work, self.out_features, rows, self.weight.value, bias, sums)
        else:
            weight = as_computed(self.weight.value, rows.dtype)
            sums = _product(rows, weight, transposed=(False, True))
            if self.bias is not None:
                sums += self.bias.value
        y = sums.reshape(*array.shape[:-1], self.out_features)
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array | None:
        """Add to the gradients of weight and bias; return the input's."""
        grad, x = self.recall(grad)
        outputs = as_computed(grad.reshape(-1, self.out_features), x.dtype)
        rows = as_computed(x.reshape(-1, self.in_features), x.dtype)
        self.weight.accumulate(_product(outputs, rows, transposed=(True, False)))
        if self.bias is not None:
            self.bias.accumulate(outputs.sum(axis=0))
        if not self.input_grad:
            return None
        return _product(outputs, as_computed(self.weight.value, x.dtype)).reshape(x.shape)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return two for each multiplication and addition."""
        return 2 * self.in_features * int(np.prod(output_shape))

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"


def _product(a: Array, b: Array, transposed: tuple[bool, bool] = (False, False)) -> Array:
    """Return ``a @ b``, one of which may be given transposed.

    In register tiles, without packing, where the matrices fit the caches; else by BLAS.
    """
    rows, columns = a.shape[transposed[0]], b.shape[1 - transposed[1]]
    out = output_memory.empty((rows, columns), a.dtype)
    fits = a.nbytes <= _MOST_BYTES_A and (transposed[1] or b.nbytes <= _MOST_BYTES_B)
    if fits and a.size and out.size and not config.DISABLE_JIT:
        product(a, b, out, transposed)
    else:
        _product_by_blas(a.T if transposed[0] else a, b.T if transposed[1] else b, out)
    return out


def _product_by_blas(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to `out`, whose longer side is divided into tasks.

    Tasks depend on the shapes alone, and each calls BLAS on one thread: results are bitwise
    identical for any thread count.
    """
    rows, columns = out.shape
    parts = max(1, min(16, a.shape[1] * out.size // _TASK_PRODUCTS))
    step = -(-max(rows, columns) // parts)

    def part(start: int) -> None:
        if rows >= columns:
            np.matmul(a[start : start + step], b, out=out[start : start + step])
        else:
            np.matmul(a, b[:, start : start + step], out=out[:, start : start + step])

    if parts == 1:
        with single_threaded():
            np.matmul(a, b, out=out)
    elif out.size:
        run_tasks(part, range(0, max(rows, columns), step))
