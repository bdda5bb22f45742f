"""Interpolation of images along height and width, and its adjoint. An item is a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.jit.compiler import inner_kernel, range_kernel

#: What is read for one output along an axis: ``(1 - part) * x[low] + part * x[high]``, and `x[low]`
#: alone where `part` is 0.
READ = np.dtype((np.record, [("low", np.int64), ("high", np.int64), ("part", np.float64)]))


@inner_kernel
def _between(low: Any, high: Any, part: Any) -> Any:
    return low if part == 0 else low * (1 - part) + high * part


@range_kernel
def interpolate(start: int, stop: int, x: Any, y: Any, rows: Any, columns: Any) -> None:
    """Write planes `start` to `stop` of `x`, read as rows and columns say, to `y`."""
    number = x.dtype.type
    for plane in range(start, stop):
        for i in range(rows.size):
            top, bottom, down = rows[i].low, rows[i].high, number(rows[i].part)
            for j in range(columns.size):
                left, right, across = columns[j].low, columns[j].high, number(columns[j].part)
                above = _between(x[plane, top, left], x[plane, top, right], across)
                below = _between(x[plane, bottom, left], x[plane, bottom, right], across)
                y[plane, i, j] = _between(above, below, down)


@range_kernel
def interpolate_grad(start: int, stop: int, grad: Any, out: Any, rows: Any, columns: Any) -> None:
    """Write the gradient of planes `start` to `stop` of `x` in `interpolate` to `out`."""
    number = grad.dtype.type
    for plane in range(start, stop):
        out[plane] = 0
        for i in range(rows.size):
            top, bottom, down = rows[i].low, rows[i].high, number(rows[i].part)
            for j in range(columns.size):
                left, right, across = columns[j].low, columns[j].high, number(columns[j].part)
                above = grad[plane, i, j] * (1 - down)
                out[plane, top, left] += above * (1 - across)
                if across != 0:
                    out[plane, top, right] += above * across
                if down != 0:
                    below = grad[plane, i, j] * down
                    out[plane, bottom, left] += below * (1 - across)
                    out[plane, bottom, right] += below * across
