"""Winograd weight gradients.

The gradient of an R x R filter is a convolution of the input with the output gradient as filter. So
F(R x R, m x m) computes it tile by tile, with (R + m - 1)^2 products instead of R^2 m^2 for each
m x m tile of the gradient. The products of all tiles of a band are matrix products, by the
weight-gradient microkernel with tiles instead of pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.codegen.winograd_transforms import Form
from fastconv.convolution.algorithm import Array, Gradient
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND, RUN
from fastconv.convolution.blocking.winograd_search import (
    kernel_refusal,
    odd_lines,
    stride_refusal,
)
from fastconv.convolution.weight_grad import weight_grad_cuts as cuts
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import freeze, record_of
from fastconv.kernels import weight_grad_loops
from fastconv.kernels import winograd_weight_grad_loops as kernels
from fastconv.kernels.winograd_microkernels import pixels_address, sums_address
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# Target and limit for the bytes of a band's transformed factors.
BAND_BYTES = 6 * 2**20
MOST_BYTES = 8 * 2**20
# Tiles of a band that amortize its fixed cost.
ENOUGH_TILES = 256


class Bands(NamedTuple):
    """The partition of a weight gradient, as the kernels read it."""

    form: Form
    shape: weight_grad_loops.WeightGradShape
    #: The records `LAYOUT` of `winograd_weight_grad_loops`, and `SUMS` of `weight_grad_loops`.
    record: NDArray[Any]
    sums_record: NDArray[Any]
    #: First image and number of images, first row of tiles and number of rows: (bands, 4).
    bands: NDArray[np.int64]
    #: Elements of the transformed factors, of each worker's buffer, and of the sums.
    shared: int
    own: int
    sums: int
    #: What the records have addresses of.
    tables: dict[str, Array]


def tile_of(problem: Conv2dProblem) -> weight_grad_loops.WeightGradShape:
    """Return the tile of the products: its columns divide a vector of channels."""
    instructions = cpu.describe().instructions
    lanes = instructions.lanes(problem.dtype)
    vectors = 2 if problem.K_per_group > lanes else 1
    columns = min(8, lanes)
    while vectors * (columns + 1) + 1 > instructions.registers:
        columns //= 2
    return weight_grad_loops.WeightGradShape(vectors * lanes, columns, 8 * problem.itemsize, lanes)


def _tiles(problem: Conv2dProblem, m: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of tiles of an image."""
    return -(-problem.OH // m), -(-problem.OW // m)


@lru_cache(maxsize=128)
def bands_of(problem: Conv2dProblem, m: int, workers: int) -> Bands:
    """Partition a problem into bands."""
    p, shape, (down, across) = problem, tile_of(problem), _tiles(problem, m)
    form = Form(p.R, m, shape.bits, shape.lanes)
    lanes, products = shape.lanes, form.alpha**2
    channel_vectors, filter_vectors = -(-p.C_per_group // lanes), -(-p.K_per_group // lanes)
    filter_tiles, blocks = -(-p.K_per_group // shape.filters), -(-p.C_per_group // shape.columns)

    def steps(tiles: int) -> tuple[int, int]:
        """Return the product strides of the input and of the gradient, in elements."""
        return odd_lines(tiles * lanes, p.itemsize), odd_lines(tiles * shape.filters, p.itemsize)

    def too_large(images: int, rows: int) -> bool:
        tiles = images * rows * across
        x_step, grad_step = steps(tiles)
        elements = p.groups * products * (channel_vectors * x_step + filter_tiles * grad_step)
        return elements * p.itemsize > BAND_BYTES or tiles > 2 * ENOUGH_TILES

    bands = cuts.cut_bands(p.N, down, *cuts.largest_band(max(1, p.N), down, too_large))
    images, rows = int(bands[:, 1].max()), int(bands[:, 3].max())
    x_step, grad_step = steps(images * rows * across)
    grads_begin = p.groups * channel_vectors * products * x_step
    shared = grads_begin + p.groups * filter_tiles * products * grad_step
    wide, high = across * m + p.R - 1, rows * m + p.R - 1
    own = odd_lines(max(high * wide * lanes, products * shape.columns * shape.filters), p.itemsize)
    plane = blocks * shape.columns * shape.filters
    tile_sums = p.R * p.S * plane
    tables = _tables(p, m, shape, images * rows * across, (high, wide))
    c, tap = np.indices((p.C_per_group, p.R * p.S)).reshape(2, -1)
    tap_offsets = cuts.whole_vectors(tap * plane + c * shape.filters, lanes)
    freeze(bands, tap_offsets, *tables.values())
    record = record_of(
        kernels.LAYOUT,
        *(p, p.record[0]),
        **tables,
        **cuts.tiles_of_filters(p, shape),
        **{"run": RUN, "x_row": 0, "x_step": 1, "out_row": shape.filters, "out_plane": 0},
        m=m,
        products=products,
        across=across,
        pixel_row=wide * lanes,
        grad_row=across * m * lanes,
        clear=any(map(any, p.padding)) or bool(p.OH % m or p.OW % m),
        workers=workers,
        lanes=lanes,
        channel_vectors=channel_vectors,
        filter_vectors=filter_vectors,
        blocks=blocks,
        tile_columns=shape.columns,
        tile_sums=tile_sums,
        x_step_product=x_step,
        x_size=products * x_step,
        grad_step_product=grad_step,
        grad_size=products * grad_step,
        grads_begin=grads_begin,
        sums_plane=plane,
        worker_begin=shared * p.itemsize,
        worker_size=own * p.itemsize,
    )
    sums: int = p.groups * filter_tiles * tile_sums
    collecting = cuts.sums_record(p, shape, tile_sums, tap_offsets)
    tables["tap_offsets"] = tap_offsets
    return Bands(form, shape, record, collecting, bands, shared, own, sums, tables)


def _tables(
    problem: Conv2dProblem,
    m: int,
    shape: weight_grad_loops.WeightGradShape,
    tiles: int,
    packed: tuple[int, int],
) -> dict[str, Array]:
    """Return the tables of `LAYOUT` for a band of tiles; `packed` is (height, width)."""
    p, (high, wide), across = problem, packed, _tiles(problem, m)[1]
    h, w = np.indices((min(p.H, high), p.W)).reshape(2, -1)
    i, j = np.indices((min(p.OH, high - p.R + 1), p.OW)).reshape(2, -1)
    return {
        "offsets": np.arange(tiles) * shape.lanes,
        "x_numbers": h * wide + w + p.padding[1][0],
        "grad_numbers": i * (across * m) + j,
        "zeros": np.zeros(shape.filters, p.dtype),
    }


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem, m: int) -> tuple[float, int]:
    """Return the estimated cycles of one core, and the number of bands."""
    p, cut = problem, bands_of(problem, m, 1)
    shape, g, (down, across) = cut.shape, cut.record[0], _tiles(problem, m)
    products = float(g.products)
    tiles, vectors = p.N * down * across, shape.filters // shape.lanes
    items = float(p.groups * g.filter_tiles * g.blocks)
    a_cycle = cpu.describe().instructions.a_cycle
    multiplying = items * products * tiles * max(vectors * shape.columns / a_cycle, 4) * 1.1
    beginning = items * products * len(cut.bands) * (40 + 4.0 * vectors * shape.columns)
    summing = items * len(cut.bands) * vectors * shape.columns * 6.0 * products
    channels = float(p.groups * (g.channel_vectors + g.filter_vectors))
    transforming = channels * tiles * 8.0 * products
    packing = channels * shape.lanes * p.N * p.P * 2.0
    transposing = 1.0 * p.K * p.taps
    cycles: float = multiplying + beginning + summing + transforming + packing + transposing
    return cycles, len(cut.bands)


@lru_cache(maxsize=128)
def _loops(problem: Conv2dProblem, m: int, workers: int) -> cuts.BandLoops:
    cut = bands_of(problem, m, workers)
    form, vectors = cut.form, (cut.shape.bits, cut.shape.lanes)
    code = record_of(
        kernels.CODE,
        transpose=weight_grad_loops.transposer_address(*vectors),
        pack=weight_grad_loops.pixel_packer_address(*vectors, 1),
        clear=weight_grad_loops.clear_address(*vectors),
        pixels=pixels_address(form, False),
        grads=pixels_address(form, True),
        microkernel=weight_grad_loops.weight_grad_address(cut.shape),
        sums=sums_address(form),
    )
    return cuts.BandLoops(cut, code.view(np.int64), _work(problem, m)[0] / CYCLES_PER_SECOND)


class WinogradWeightGrad(Gradient):
    """The output gradient is the filter, in tiles of ``m x m``."""

    def __init__(self, m: int) -> None:
        self.m = m

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take kernels of 3 x 3 and 5 x 5 without stride or dilation, and small bands."""
        reason = stride_refusal(problem) or kernel_refusal(problem)
        if reason is not None:
            return reason
        sums = bands_of(problem, self.m, 1).sums
        band = cuts.band_refusal(self.workspace_bytes(problem), MOST_BYTES)
        return band or cuts.sums_refusal(problem, sums, BAND_BYTES)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one band; the sums, another copy of the weights, are not included."""
        cut = bands_of(problem, self.m, 1)
        return (cut.shared + cut.own) * problem.itemsize

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the instructions of products and transforms."""
        cycles, bands = _work(problem, self.m)
        return 15e-6 + (cycles / threads + 60e3 * bands) / CYCLES_PER_SECOND

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, R, R), with the gradient of the weights."""
        p, workers = problem, useful_threads(_work(problem, self.m)[0] / CYCLES_PER_SECOND)
        loops = _loops(problem, self.m, workers)
        cut = loops.cut
        with (
            scratch("bands", (cut.shared + workers * cut.own,), p.dtype) as memory,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            arrays = factor.reshape(-1), grad_output.reshape(-1), memory, sums
            for band in cut.bands:
                loops.run(workers, kernels.transform_address(), workers, arrays, band)
                loops.run(workers, kernels.multiply_address(), workers, arrays, band)
            loops.collect(p, arrays, out)
