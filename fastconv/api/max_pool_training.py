"""Maximum pooling for training: where each maximum was is kept in one byte, not in eight.

The byte is the maximum's number inside its window. The gradient needs no more, because the windows
are known: each pixel looks at the few windows that it is in, whether one of them names it. A
rectifier goes with the maximum: where its output is 0, the byte names no pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.api.max_pool2d import maxima
from fastconv.core.arguments import as_computed
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.pooling import pool_tiles
from fastconv.pooling.pool_registry import find
from fastconv.runtime import output_memory

Array = NDArray[Any]


class Places(NamedTuple):
    """Where the maxima were; only `placed_grad` knows how to read it.

    Attributes
    ----------
    problem : Pool2dProblem
    where : ndarray
        Bytes, with room for a vector before and behind; or flat indices (int64), where register
        tiles do not take the windows.
    rectified : ndarray or None
        The output of the rectifier, which indices know nothing of.
    """

    problem: Pool2dProblem
    where: Array
    rectified: Array | None = None


def max_pool2d_placed(
    x: Array, problem: Pool2dProblem, rectified: bool = False
) -> tuple[Array, Places]:
    """Return the maxima of a checked array, and their places for `max_pool2d_placed_grad`.

    Both of what a rectifier makes of them, if that is wanted.
    """
    if not problem.N or pool_tiles.tile_window(problem.maximum_axes) is None:
        indices = output_memory.empty(problem.output_shape, np.int64)
        values = maxima(x, problem, indices)
        if rectified:
            np.maximum(values, 0, out=values)
        return values, Places(problem, indices, values if rectified else None)
    axes = problem.maximum_axes
    x, values = (
        as_computed(x, problem.dtype),
        output_memory.empty(problem.output_shape, problem.dtype),
    )
    # The gradient loads whole vectors, from windows before the first one to behind the last.
    lanes = pool_tiles.tile_shape("max-grad", axes, problem.dtype).lanes
    before, behind = problem.S, lanes + problem.W + problem.padding[1][0]
    rows = problem.N * problem.C * problem.OH
    size = before + rows * pool_tiles.place_row(axes, problem.dtype) + behind
    room = output_memory.empty((size,), np.uint8)
    where = room[before:]
    pool_tiles.run("max-relu-byte" if rectified else "max-byte", axes, x, values, where)
    return values, Places(problem, where)


def max_pool2d_placed_grad(grad: Array, places: Places) -> Array:
    """Return the gradient with respect to the input; `grad` has the shape of the maxima."""
    problem, where, rectified = places
    if rectified is not None:
        grad = np.where(rectified != 0, grad, grad.dtype.type(0))
    grad = as_computed(grad, problem.dtype)
    out = output_memory.empty(problem.input_shape, problem.dtype)
    if where.dtype == np.uint8:
        pool_tiles.run("max-grad", problem.maximum_axes, grad, out, where)
    elif out.size:  # windows without any element have an index outside, which is passed over
        find("auto").maximum_grad(grad, as_computed(where, "int64"), out)
    return out
