"""A partition into register tiles, bands and parts as the kernel reads it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.blocking.tile_search import RUN, Band, Blocking, Cut, axes_of, sizes_of
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.core.records import freeze, record_of
from fastconv.kernels.conv_loops import LAYOUT
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu

# The most tiles of pixels in a cache block.
BLOCK_TILES = 16


class Tiling(NamedTuple):
    """The partition of the work, as the kernel reads it.

    Attributes
    ----------
    record : ndarray of one record
        The parameters `fastconv.kernels.conv_loops.LAYOUT`.
    offsets : ndarray of int64, (taps,)
        The input offset of each tap (r, c, s) from the tile's corner, in elements.
    cuts : ndarray of int64
        Bounds of the row bands, the column bands, and the parts of the output channels.
    workers : int
        The number of threads with work.
    step : int
        The column stride of a phase in a band.
    band_bytes : int
        Buffer of one worker: one band of the input, 0 if the input is read in place.
    """

    record: NDArray[Any]
    offsets: NDArray[np.int64]
    cuts: NDArray[np.int64]
    workers: int
    step: int
    band_bytes: int


class Target(NamedTuple):
    """The strides of rows, pixels and channels in the output, in elements."""

    row: int
    step: int
    plane: int


@lru_cache(maxsize=128)
def tiling_of(problem: Conv2dProblem, found: Blocking, target: Target | None = None) -> Tiling:
    """Return the result of a search as the kernel reads it; by default `out` is contiguous."""
    p, shape, cut = problem, found.shape, found.cut
    band = Band(p, sizes_of((shape,)), cut)
    sets, set_step, row_step = (p.R, p.dilation[0], p.stride[0]) if band.apart else (1, 0, 1)
    filter_tiles = -(-p.K_per_group // shape.filters)
    tasks = p.N * p.groups * cut.rows * cut.columns * cut.parts
    workers = max(1, min(found.threads, tasks))
    row, plane = (band.row, band.plane) if band.copied else (p.W, p.H * p.W)
    block_rows, block_columns = _block(p, shape, cut, row)
    target = target or Target(p.OW, 1, p.P)
    record = record_of(
        LAYOUT,
        *(p, p.record[0], band),
        row_taps=p.C_per_group * p.S,
        x_row=p.stride[0] // row_step * row if band.copied else p.stride[0] * row,
        x_step=p.stride[1] // band.step if band.copied else p.stride[1],
        **{"out_row": target.row, "out_step": target.step, "out_plane": target.plane},
        run=-(-p.taps // -(-p.taps // RUN)),
        span_h=1 if band.apart else extent(p.R, p.dilation[0]),
        tile_filters=shape.filters,
        tile_rows=shape.rows,
        tile_columns=shape.columns,
        filter_tiles=filter_tiles,
        **{"row_bands": cut.rows, "column_bands": cut.columns, "parts": cut.parts},
        block_rows=block_rows,
        block_columns=block_columns,
        tasks=tasks,
        workers=workers,
        band_bytes=band.elements * p.itemsize,
        band_plane=band.plane,
        band_step=band.step,
        **{"sets": sets, "set_step": set_step, "set_size": band.plane // sets},
        row_step=row_step,
        halved=shape.pooled,
    )
    r, c, s = np.indices((p.R, p.C_per_group, p.S)).reshape(3, -1)
    down, across = r * p.dilation[0] * row, s * p.dilation[1]
    if band.copied:
        down = r * (band.plane // sets) if band.apart else down
        across = across % band.step * band.phase_width + across // band.step
    offsets = c * plane + down + across
    axes = axes_of(p, sizes_of((shape,)), cut)
    cuts = np.array([start for axis in axes for start in axis.starts()])
    freeze(offsets, cuts)
    return Tiling(record, offsets, cuts, workers, band.step, int(band.elements) * p.itemsize)


def _block(problem: Conv2dProblem, shape: TileShape, cut: Cut, row: int) -> tuple[int, int]:
    """Return the rows and columns of a cache block, whose input fits L2.

    `row` is the row stride of the input.
    """
    p, line = problem, 64 // problem.itemsize
    room = cpu.describe().l2_bytes * 5 // 8 // 64
    across = max(1, -(-p.OW // (shape.columns * cut.columns)))
    down = max(1, -(-p.OH // (shape.rows * cut.rows)))

    def lines(tiles_down: int, tiles_across: int) -> int:
        height = (tiles_down * shape.rows - 1) * p.stride[0] + extent(p.R, p.dilation[0])
        height = min(height, tiles_down * shape.rows * p.R)
        width = (tiles_across * shape.columns - 1) * p.stride[1] + extent(p.S, p.dilation[1])
        if width >= row:  # whole rows are contiguous
            height, width = 1, height * row
        return p.C_per_group * height * (line + width) // line

    wide = min(across, BLOCK_TILES)
    while wide > 1 and lines(1, wide) > room:
        wide -= 1
    high = min(down, max(1, BLOCK_TILES // wide)) if wide == across else 1
    while high > 1 and lines(high, wide) > room:
        high -= 1
    wide, high = -(-across // -(-across // wide)), -(-down // -(-down // high))
    return high * shape.rows, wide * shape.columns
