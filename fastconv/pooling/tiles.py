"""Which poolings the register tiles take, and how they are called."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba.core import config
from numpy.typing import NDArray

from fastconv import cpu
from fastconv.codegen.pooling import Window
from fastconv.kernels.pooling import BACKWARD, PoolShape, pool_address, run_blocks
from fastconv.pooling.axis import Axes, Axis

Array = NDArray[Any]

# Taps are unrolled, and strides are shuffles: beyond these the code would be long and no faster.
MOST_TAPS = 49
FARTHEST = 4
# Rows of one tile where they share what they read.
ROWS = 4


@lru_cache(maxsize=256)
def tile_window(axes: Axes) -> Window | None:
    """Return the window that tiles are made for, None where plain loops are the better way."""
    rows, columns = axes
    if rows.even is None or columns.even is None or config.DISABLE_JIT:
        return None
    (_, down, R), (_, across, S) = rows.even, columns.even
    if R * S > MOST_TAPS or max(down, across, rows.step, columns.step) > FARTHEST:
        return None
    return Window(R, S, (down, across), (rows.step, columns.step))


def margins(axes: Axes) -> tuple[int, int]:
    """Return how far the first window begins above, and left of, the input."""
    rows, columns = axes
    return -(rows.even or (0,))[0], -(columns.even or (0,))[0]


@lru_cache(maxsize=256)
def tile_shape(form: str, axes: Axes, dtype: str) -> PoolShape:
    """Return the kernel for some windows: vectors no wider than a row fills."""
    window, (rows, columns) = tile_window(axes), axes
    assert window is not None
    (down, across), (_, left) = window.stride, margins(axes)
    shared = (window.R - 1) * window.dilation[0] >= down
    if form in BACKWARD:
        tile_rows = max(1, ROWS // down) if shared else 1
        across_rows = -(-(columns.size + left) // across)
    else:
        tile_rows = min(ROWS, rows.outputs) if shared else 1
        across_rows = columns.outputs
    bits = 8 * np.dtype(dtype).itemsize
    lanes = 128 // bits
    while lanes < min(across_rows, cpu.describe().instructions.lanes(dtype)):
        lanes *= 2
    return PoolShape(form, window, tile_rows, bits, lanes)


@lru_cache(maxsize=256)
def _divisors(axis: Axis, dtype: str) -> Array:
    return axis.divisor.astype(dtype)


def run(
    form: str,
    axes: Axes,
    source: Array,
    target: Array,
    places: Array | None = None,
    place_row: int = 0,
    first_place: int = 0,
) -> None:
    """Fill `target` from `source`; `places` begin at its element `first_place`."""
    rows, columns = axes
    dtype = str(source.dtype)
    shape = tile_shape(form, axes, dtype)
    top, left = margins(axes)
    planes = source.shape[0] * source.shape[1]
    high = rows.size + top if form in BACKWARD else rows.outputs
    blocks = -(-high // (shape.rows * (shape.window.stride[0] if form in BACKWARD else 1)))
    divisors = _divisors(rows, dtype), _divisors(columns, dtype)
    where = 0 if places is None else places.ctypes.data + first_place * places.itemsize
    numbers = (
        *(source.ctypes.data, where, target.ctypes.data, *(d.ctypes.data for d in divisors)),
        *(rows.size, columns.size, rows.outputs, columns.outputs, place_row, top, left),
    )
    run_blocks(planes * blocks, pool_address(shape), np.array(numbers, np.int64))
