"""Maximum pooling for training: the argmax of a window is kept in one byte, not in eight.

The byte is the number of a tap of the window. The gradient needs no more, because the windows are
known: each pixel checks which of the few windows that it is in name it. A ReLU may follow the
maximum: where its output is 0, the byte names no tap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastconv.api.max_pool2d import maxima
from fastconv.core.arguments import Array, as_computed
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.pooling import pool_tiles
from fastconv.pooling.pool_registry import FASTEST
from fastconv.runtime import output_memory


class Argmax(NamedTuple):
    """The argmax of each window; only `max_pool2d_training_grad` knows how to read it.

    Attributes
    ----------
    problem : Pool2dProblem
    where : ndarray
        Bytes, padded by a vector on both sides; or flat indices (int64), where register tiles do
        not take the windows.
    relu_output : ndarray or None
        The output of the ReLU, which indices know nothing of.
    """

    problem: Pool2dProblem
    where: Array
    relu_output: Array | None = None


def max_pool2d_training(
    x: Array, problem: Pool2dProblem, relu: bool = False
) -> tuple[Array, Argmax]:
    """Return the maxima of a checked array, after a ReLU if wanted, and each argmax."""
    axes, dtype = problem.maximum_axes, problem.dtype
    if not problem.N or pool_tiles.tile_window(axes) is None:
        indices = output_memory.empty(problem.output_shape, np.int64)
        values = maxima(x, problem, indices)
        if relu:
            np.maximum(values, 0, out=values)
        return values, Argmax(problem, indices, values if relu else None)
    values = output_memory.empty(problem.output_shape, dtype)
    # The gradient loads whole vectors, from windows before the first one to beyond the last.
    lanes = pool_tiles.tile_shape("max-grad", axes, dtype).lanes
    before, after = problem.S, lanes + problem.W + problem.padding[1][0]
    rows = problem.N * problem.C * problem.OH
    size = before + rows * pool_tiles.argmax_row(axes, dtype) + after
    where = output_memory.empty((size,), np.uint8)[before:]
    form = "max-relu-byte" if relu else "max-byte"
    pool_tiles.run(form, axes, as_computed(x, dtype), values, where)
    return values, Argmax(problem, where)


def max_pool2d_training_grad(grad: Array, argmax: Argmax) -> Array:
    """Return the gradient with respect to the input; `grad` has the shape of the maxima."""
    problem, where, relu_output = argmax
    if relu_output is not None:
        grad = np.where(relu_output != 0, grad, grad.dtype.type(0))
    grad = as_computed(grad, problem.dtype)
    out = output_memory.empty(problem.input_shape, problem.dtype)
    if where.dtype == np.uint8:
        pool_tiles.run("max-grad", problem.maximum_axes, grad, out, where)
    elif out.size:  # windows without any element have an index outside, which is ignored
        FASTEST.maximum_grad(grad, as_computed(where, "int64"), out)
    return out
