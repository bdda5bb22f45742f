"""The layer in which everything is connected with everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import config
from numpy.typing import ArrayLike, NDArray

from fastconv.core.arguments import as_computed, as_flag
from fastconv.core.geometry import as_int
from fastconv.kernels.dense_loops import product, weighted_sums
from fastconv.nn.init import default_bias, default_weight
from fastconv.nn.layer_arguments import RngLike, as_floats, as_generator, check_parameter
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.runtime import output_memory
from fastconv.runtime.blas import single_threaded
from fastconv.runtime.threads import run_tasks

Array = NDArray[Any]

# Multiplications that are worth a task of their own: a thread of Python wakes in a tenth of a
# millisecond.
_PART = 2**23
# Rows for which a matrix product is no more than reading the matrix.
_FEW_ROWS = 4
# Products that are one step of work.
_LANES = 16
# The largest first matrix whose products tiles take: a few columns each pass over all of it. And
# the largest second one, if it is not turned: its columns are read a few lines of each row at a
# time, which takes BLAS 0.7 times as long where they come from memory.
_MOST_BYTES, _MOST_UNTURNED = 2**24, 2**23


class Linear(Module):
    """Every output is a weighted sum of all inputs: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rng : numpy.random.Generator or int, optional
        For the first weights: evenly within ±1 / sqrt(in_features), as in PyTorch.

    Attributes
    ----------
    weight : Parameter, (out_features, in_features)
    bias : Parameter, (out_features,), or None
    input_grad : bool
        As in `Conv2d`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> layer = Linear(3, 2, rng=0)
    >>> layer.weight.data[...], layer.bias.data[...] = 1, [0, 10]
    >>> layer(np.ones((1, 3), np.float32))
    array([[ 3., 13.]], dtype=float32)
    >>> layer.backward(np.ones((1, 2)))
    array([[2., 2., 2.]], dtype=float32)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: RngLike = None
    ) -> None:
        self.in_features = as_int("in_features", in_features, 1)
        self.out_features = as_int("out_features", out_features, 1)
        shape, generator = (self.out_features, self.in_features), as_generator(rng)
        self.weight = Parameter(default_weight(shape, generator))
        biased = as_flag("bias", bias)
        self.bias = Parameter(default_bias(self.out_features, shape, generator)) if biased else None
        self.input_grad = True

    def forward(self, x: ArrayLike) -> Array:
        """Return the weighted sums of `x`, (..., in_features)."""
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
            sums = _product(rows, weight, turned=(False, True))
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
        self.weight.accumulate(_product(outputs, rows, turned=(True, False)))
        if self.bias is not None:
            self.bias.accumulate(outputs.sum(axis=0))
        if not self.input_grad:
            return None
        return _product(outputs, as_computed(self.weight.value, x.dtype)).reshape(x.shape)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return two for each product."""
        return 2 * self.in_features * int(np.prod(output_shape))

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def _product(a: Array, b: Array, turned: tuple[bool, bool] = (False, False)) -> Array:
    """Return ``a @ b`` of two matrices, of which one may be given turned.

    In register tiles, straight from where the matrices lie, where they stay in the processor's
    caches; else by BLAS.
    """
    rows, columns = a.shape[turned[0]], b.shape[1 - turned[1]]
    out = output_memory.empty((rows, columns), a.dtype)
    fits = a.nbytes <= _MOST_BYTES and (turned[1] or b.nbytes <= _MOST_UNTURNED)
    if fits and a.size and out.size and not config.DISABLE_JIT:
        product(a, b, out, turned)
    else:
        _product_by_blas(a.T if turned[0] else a, b.T if turned[1] else b, out)
    return out


def _product_by_blas(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to `out`, cut along the longer side of it into parts for threads.

    The parts depend on the shapes alone, and BLAS works on each with one thread: the same bits
    for every number of threads.
    """
    rows, columns = out.shape
    parts = max(1, min(16, a.shape[1] * out.size // _PART))
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
