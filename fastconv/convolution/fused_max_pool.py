"""2 x 2 max pooling fused into a convolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.pool_problem import Pool2dProblem, pooling_axes
from fastconv.pooling.compiled_pooling import Jit

#: Height, width and stride of a window.
SIDE = 2


def pooling_of(problem: Conv2dProblem) -> Pool2dProblem:
    """Return the pooling of a convolution's output; an odd last row or column is in no window."""
    p = problem
    sizes = p.N, p.K, p.OH, p.OW, SIDE, SIDE
    return Pool2dProblem(*sizes, (SIDE, SIDE), ((0, 0), (0, 0)), (1, 1), False, p.dtype)


def pool(problem: Conv2dProblem, whole: NDArray[Any], out: NDArray[Any]) -> None:
    """Fill `out` with the maxima of the windows of the `whole` output."""
    Jit().maximum(whole, pooling_axes(pooling_of(problem), False), out, None)


def evened(problem: Conv2dProblem) -> Conv2dProblem:
    """Return the convolution without the odd last row and column of its output.

    The bottom and right padding shrink for that, and may become negative.
    """
    p = problem
    (top, bottom), (left, right) = p.padding
    bottom -= p.OH % SIDE * p.stride[0]
    right -= p.OW % SIDE * p.stride[1]
    return replace(p, padding=((top, bottom), (left, right)))
