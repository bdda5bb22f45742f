"""Which poolings the register tiles take, and how they are called."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba.core import config

from fastconv.codegen.pool_tile import Window
from fastconv.core.arguments import Array
from fastconv.core.pool_axis import Axes, divisors
from fastconv.jit.launch import Launch
from fastconv.kernels.pool_tile_loops import BACKWARD, PoolShape, pool_address
from fastconv.runtime import cpu

# Each window is a kernel of its own, which takes time to compile: there are kernels for those of
# networks, as high as wide, up to this size and stride.
LARGEST_WINDOW = 5
LARGEST_STRIDE = 3
# Rows of one tile where they share what they read.
ROWS = 4


@lru_cache(maxsize=256)
def tile_window(axes: Axes) -> Window | None:
    """Return the window that tiles are made for, None where other kernels are faster."""
    rows, columns = axes
    if rows.even is None or columns.even is None or config.DISABLE_JIT:
        return None
    (top, down, R), (left, across, S) = rows.even, columns.even
    alike = (
        R == S <= LARGEST_WINDOW
        and down == across <= LARGEST_STRIDE
        and min(top, left) >= -(R // 2)
    )
    return Window(R, S, (down, across)) if alike and rows.step == columns.step == 1 else None


def padding_before(axes: Axes) -> tuple[int, int]:
    """Return the padding above and left of the input."""
    rows, columns = axes
    return -(rows.even or (0,))[0], -(columns.even or (0,))[0]


@lru_cache(maxsize=256)
def tile_shape(form: str, axes: Axes, dtype: str | np.dtype[Any]) -> PoolShape:
    """Return the kernel for some windows: vectors of half a register for narrow maps."""
    window, (rows, columns) = tile_window(axes), axes
    assert window is not None
    (down, across), (_, left) = window.stride, padding_before(axes)
    if form in BACKWARD:
        tile_rows, wide = ROWS // down, -(-(columns.size + left) // across)
    else:
        tile_rows, wide = ROWS if rows.outputs >= ROWS else 1, columns.outputs
    if down >= window.R:  # they share nothing
        tile_rows = 1
    bits, lanes = 8 * np.dtype(dtype).itemsize, cpu.describe().instructions.lanes(dtype)
    if wide <= lanes // 2 and lanes * bits > 128:
        lanes //= 2
    return PoolShape(form, window, tile_rows, bits, lanes)


@lru_cache(maxsize=256)
def argmax_row(axes: Axes, dtype: str | np.dtype[Any]) -> int:
    """Return how many bytes a row of the argmax has: whole vectors are stored."""
    lanes = tile_shape("max-byte", axes, dtype).lanes
    return -(-axes[1].outputs // lanes) * lanes


@lru_cache(maxsize=256)
def _launch(form: str, axes: Axes, dtype: np.dtype[Any]) -> tuple[int, Launch]:
    """Return how many blocks a plane has, and the kernel ready to be called with its arrays."""
    rows, columns = axes
    shape, (top, left) = tile_shape(form, axes, dtype), padding_before(axes)
    block, high = shape.rows, rows.outputs
    if form in BACKWARD:
        block, high = shape.rows * shape.window.stride[0], rows.size + top
    row = columns.outputs if form == "max-index" else argmax_row(axes, dtype)
    tables = divisors(rows, dtype), divisors(columns, dtype)
    sizes = rows.size, columns.size, rows.outputs, columns.outputs, row, top, left
    return -(-high // block), Launch(pool_address(shape), tables, sizes)


def run(form: str, axes: Axes, source: Array, target: Array, argmax: Array | None = None) -> None:
    """Fill `target`, and in "max-byte" and "max-index" `argmax`, from `source`."""
    blocks, launch = _launch(form, axes, source.dtype)
    launch(source.shape[0] * source.shape[1] * blocks, source, target, argmax)
