"""The sizes of register tiles: tables, and which tiles fit a processor and a problem."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu

Over = Literal["channels", "width"]

# The largest stride for tiles of several pixels.
FARTHEST_STRIDE = 16

#: Tiles vectorized over output channels: vectors of filters, rows and columns of pixels.
FILTER_TILES = (
    *((2, 1, 14), (2, 1, 13), (2, 1, 10), (2, 1, 8), (2, 1, 7), (2, 1, 6), (2, 2, 7)),
    *((3, 1, 7), (3, 1, 4), (2, 1, 4), (2, 3, 2), (2, 1, 2), (2, 1, 1)),
    *((1, 1, 14), (1, 1, 8), (1, 2, 7), (1, 1, 4), (1, 1, 1)),
)
#: Tiles vectorized over output pixels: filters, rows, vectors of pixels.
PIXEL_TILES = (
    *((8, 1, 3), (12, 1, 2), (8, 1, 2), (8, 3, 1), (12, 2, 1), (8, 2, 1), (8, 1, 1)),
    *((4, 2, 2), (4, 1, 2), (4, 2, 1), (4, 1, 1), (1, 4, 2), (1, 2, 4), (1, 4, 1), (1, 7, 1)),
    *((1, 1, 2), (1, 1, 1), (2, 4, 1), (2, 2, 2)),
)


@lru_cache(maxsize=4)
def all_shapes(dtype: str) -> tuple[TileShape, ...]:
    """Return the tiles of both tables that fit the registers, for each column stride."""
    instructions = cpu.describe().instructions
    lanes, bits = instructions.lanes(dtype), 32 if dtype == "float32" else 64
    found = []
    for vectors, rows, columns in FILTER_TILES:
        if vectors * (rows * columns + 1) + 1 <= instructions.registers:
            size = vectors * lanes, rows, columns
            found += [TileShape("channels", *size, step, bits, lanes) for step in (1, 2, 0)]
    for filters, rows, vectors in PIXEL_TILES:
        if (filters + 1) * rows * vectors + 1 <= instructions.registers:
            found.append(TileShape("width", filters, rows, vectors * lanes, 1, bits, lanes))
    return tuple(found)


def shapes(problem: Conv2dProblem, over: Over, pooled: bool = False) -> Iterator[TileShape]:
    """Return the tiles that fit the registers and the output of a problem (as rows).

    If `pooled`, tiles with 2 x 2 max pooling.
    """
    p = problem
    step = p.stride[1] if p.stride[1] <= 2 else 0
    for shape in all_shapes(p.dtype):
        if shape.over != over or shape.rows > p.OH:
            continue
        # Measured: two vectors are up to a quarter faster than twice as many filters.
        wide = shape.lanes * (1 if shape.lanes >= p.OW else 2)
        if pooled and (over == "channels" or shape.rows % 2 or shape.columns != wide):
            continue
        columns = 1
        if over == "channels":
            columns = shape.columns
            if columns > p.OW or shape.step != step:
                continue
        # A band holds all the input between the pixels of a tile.
        if max(shape.rows, columns) > 1 and max(p.stride) > FARTHEST_STRIDE:
            continue
        yield shape._replace(pooled=pooled)
