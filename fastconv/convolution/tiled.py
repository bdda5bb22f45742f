"""Convolution in register tiles: no column matrix, no layout change, close to the peak.

The input is read where it lies. What is made once is the weights' layout: for a tile of filters
all its weights of one tap stand side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastconv import threads
from fastconv.convolution.base import Algorithm, Array
from fastconv.convolution.tiling import Lanes, as_rows, cycles, tile_shape, tiling_of
from fastconv.kernels.bands import band_copy_address
from fastconv.kernels.tiled import convolve
from fastconv.kernels.tiles import TileShape, tile_address
from fastconv.problem import Conv2dProblem, Direction
from fastconv.workspace import scratch


class Prepared(NamedTuple):
    """The weights as the tiles read them."""

    problem: Conv2dProblem  # as rows
    shape: TileShape
    weight: Array  # (groups, filter tiles, taps, filters of a tile)


class Tiled(Algorithm):
    """Sums of a block of pixels times a block of filters, in registers over all taps."""

    lanes_over: Lanes

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Count the tiles' instructions, the stores at their ends, and the padding."""
        p = as_rows(problem)
        computing = cycles(p, tile_shape(p, self.lanes_over))
        return 5e-6 + (computing / 4e9 + problem.input_bytes / 20e9) / threads

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """One band of the input."""
        p = as_rows(problem)
        return tiling_of(p, self.lanes_over, threads.get_num_threads()).band_bytes

    def prepare(self, problem: Conv2dProblem, weight: Array) -> Prepared:
        """Return the weights as (groups, tiles, taps, filters of a tile)."""
        p = as_rows(problem)
        shape = tile_shape(p, self.lanes_over)
        tiles = -(-p.K_per_group // shape.filters)
        packed = np.zeros((p.groups, tiles, p.taps, shape.filters), p.dtype)
        rows = weight.reshape(p.groups, p.K_per_group, p.taps)
        for tile in range(tiles):
            filters = rows[:, tile * shape.filters : (tile + 1) * shape.filters]
            packed[:, tile, :, : filters.shape[1]] = filters.swapaxes(1, 2)
        return Prepared(p, shape, packed)

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Prepared, bias: Array, out: Array
    ) -> None:
        """Give each worker a range of bands and filters."""
        p, shape, weight = prepared
        tiling = tiling_of(p, self.lanes_over, threads.get_num_threads())
        limits = np.array([-np.inf, np.inf], p.dtype)
        elements = tiling.workers * tiling.band_bytes // p.itemsize
        with scratch("bands", (elements,), p.dtype) as bands:
            convolve(
                tiling.workers,
                tile_address(shape),
                band_copy_address(tiling.phases if tiling.phases <= 2 else 0, shape.bits, shape.lanes),
                x.reshape(-1),
                weight.reshape(-1),
                bias,
                out.reshape(-1)[:0],
                out.reshape(-1),
                limits,
                tiling.offsets,
                bands,
                tiling.record,
            )


class ImplicitGemm(Tiled):
    """Filters in the lanes, pixels broadcast from where they lie: any stride, any map."""

    name = "implicit_gemm"
    lanes_over = "filters"


class Direct(Tiled):
    """Pixels in the lanes, weights broadcast: large maps, few taps, few filters, depthwise."""

    name = "direct"
    lanes_over = "pixels"
