"""The gradient of the weights by Winograd's method.

The gradient of a filter of R x R taps is a convolution of the input with the gradient of the output
as its filter, so F(R x R, m x m) computes it a tile at a time: with (R + m - 1)^2 products for each
tile of m x m elements of the gradient instead of R^2 m^2. The products of all tiles of a band are
matrix products on the register tile of weight gradients, with tiles in the place of pixels.

The cut into bands depends on the problem alone, and so does the order of every sum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, Gradient, as_read_only, compiler_missing
from fastconv.convolution.blocking.partition import split
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND, RUN
from fastconv.convolution.blocking.winograd_search import (
    kernel_refusal,
    odd_lines,
    stride_refusal,
)
from fastconv.convolution.weight_grad.implicit_gemm_weight_grad import (
    collect_sums,
    collecting,
    whole_vectors,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.weight_grad_loops import (
    GradientShape,
    clear_address,
    gradient_tile_address,
    pixel_packer_address,
)
from fastconv.kernels.winograd_loops import Form
from fastconv.kernels.winograd_weight_grad_loops import (
    LAYOUT,
    multiply_band,
    pixels_address,
    sums_address,
    transform_band,
)
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# What is transformed of one band if that is possible, and the most there may be.
BAND_BYTES = 6 * 2**20
MOST_BYTES = 8 * 2**20
# Tiles of a band that make the most of what is begun anew for each.
ENOUGH_TILES = 256


class Bands(NamedTuple):
    """How a weight gradient is cut, as the kernels read it.

    Attributes
    ----------
    form : Form
    shape : GradientShape
    record : ndarray of one record
        The numbers `fastconv.kernels.winograd_weight_grad_loops.FIELDS`.
    bands : ndarray of int64, (bands, 4)
        First image and number of images, first row of tiles and number of rows.
    offsets : ndarray of int64
        Where each tile lies, in elements.
    x_places, grad_places : ndarray of int64
        Where elements of an image's rows, of the input and of the gradient, go.
    taps : ndarray of int64
        Where each tap (c, r, s) lies in the sums of a tile of filters.
    shared, own : int
        Elements for what is transformed, and of each worker.
    sums : int
        Elements for the sums.
    """

    form: Form
    shape: GradientShape
    record: NDArray[Any]
    bands: NDArray[np.int64]
    offsets: NDArray[np.int64]
    x_places: NDArray[np.int64]
    grad_places: NDArray[np.int64]
    taps: NDArray[np.int64]
    shared: int
    own: int
    sums: int


def tile_of(problem: Conv2dProblem) -> GradientShape:
    """Return the tile of the products: its columns divide a vector of channels."""
    instructions = cpu.describe().instructions
    lanes = instructions.lanes(problem.dtype)
    vectors = 2 if problem.K_per_group > lanes else 1
    columns = min(8, lanes)
    while vectors * (columns + 1) + 1 > instructions.registers:
        columns //= 2
    return GradientShape(vectors * lanes, columns, 8 * problem.itemsize, lanes)


def _tiles(problem: Conv2dProblem, m: int) -> tuple[int, int]:
    """Return rows and columns of tiles of one image."""
    return -(-problem.OH // m), -(-problem.OW // m)


@lru_cache(maxsize=128)
def bands_of(problem: Conv2dProblem, m: int, workers: int) -> Bands:
    """Cut a problem into bands, and give all numbers of the cut."""
    p, shape = problem, tile_of(problem)
    form = Form(p.R, m, shape.bits, shape.lanes)
    lanes, products = shape.lanes, form.alpha**2
    down, across = _tiles(p, m)
    channel_vectors, filter_vectors = -(-p.C_per_group // lanes), -(-p.K_per_group // lanes)
    filter_tiles = -(-p.K_per_group // shape.filters)
    blocks = -(-p.C_per_group // shape.columns)

    def sizes(tiles: int) -> tuple[int, int]:
        """Return elements from one product to the next, of the input and of the gradient."""
        return odd_lines(tiles * lanes, p.itemsize), odd_lines(tiles * shape.filters, p.itemsize)

    def elements(tiles: int) -> int:
        x_step, grad_step = sizes(tiles)
        return p.groups * products * (channel_vectors * x_step + filter_tiles * grad_step)

    def many(images: int, rows: int) -> bool:
        tiles = images * rows * across
        return elements(tiles) * p.itemsize > BAND_BYTES or tiles > 2 * ENOUGH_TILES

    images, rows = max(1, p.N), down
    while images > 1 and many(images, rows):
        images -= 1
    while rows > 1 and many(images, rows):
        rows -= 1
    bands = [
        (n0, n1 - n0, i0, i1 - i0)
        for n0, n1 in split(max(1, p.N), -(-max(1, p.N) // images))
        for i0, i1 in split(down, -(-down // rows))
    ]
    images, rows = max(band[1] for band in bands), max(band[3] for band in bands)
    tiles = images * rows * across
    x_step, grad_step = sizes(tiles)
    grads_begin = p.groups * channel_vectors * products * x_step
    shared = grads_begin + p.groups * filter_tiles * products * grad_step
    wide, high = across * m + p.R - 1, rows * m + p.R - 1
    own = odd_lines(max(high * wide * lanes, products * shape.columns * shape.filters), p.itemsize)
    plane = blocks * shape.columns * shape.filters
    values: dict[str, int] = {
        **{n: getattr(p, n) for n in ("C", "K", "H", "W", "OH", "OW", "R", "groups")},
        "C_per_group": p.C_per_group,
        **collecting(p, shape, p.R * p.S * plane),
        "run": RUN,
        "x_row": 0,
        "x_step": 1,
        "out_row": shape.filters,
        "out_plane": 0,
        "m": m,
        "products": products,
        "pad_top": p.padding[0][0],
        "across": across,
        "pixel_row": wide * lanes,
        "grad_row": across * m * lanes,
        "clear": any(map(any, p.padding)) or bool(p.OH % m or p.OW % m),
        "workers": workers,
        "channel_vectors": channel_vectors,
        "filter_vectors": filter_vectors,
        "blocks": blocks,
        "tile_columns": shape.columns,
        "x_step_product": x_step,
        "x_size": products * x_step,
        "grad_step_product": grad_step,
        "grad_size": products * grad_step,
        "grads_begin": grads_begin,
        "sums_plane": plane,
        "worker_begin": shared * p.itemsize,
        "worker_size": own * p.itemsize,
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    h, w = np.indices((min(p.H, high), p.W)).reshape(2, -1)
    i, j = np.indices((min(p.OH, rows * m), p.OW)).reshape(2, -1)
    c, tap = np.indices((p.C_per_group, p.R * p.S)).reshape(2, -1)
    arrays = (
        np.array(bands),
        np.arange(tiles) * lanes,
        h * wide + w + p.padding[1][0],
        i * (across * m) + j,
        whole_vectors(tap * plane + c * shape.filters, lanes),
    )
    for array in (record, *arrays):
        array.flags.writeable = False
    sums = p.groups * filter_tiles * p.R * p.S * plane
    return Bands(form, shape, record, *arrays, shared, own, sums)


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem, m: int) -> tuple[float, int]:
    """Return about how many cycles one core takes, and the number of bands."""
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
    placing = 1.0 * p.K * p.taps
    cycles: float = multiplying + beginning + summing + transforming + packing + placing
    return cycles, len(cut.bands)


class WinogradWeightGrad(Gradient):
    """The output's gradient taken for the filter, a tile of ``m x m`` at a time."""

    def __init__(self, m: int) -> None:
        self.m = m

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take kernels of 3 x 3 and 5 x 5 without stride or dilation, and small bands."""
        reason = stride_refusal(problem) or kernel_refusal(problem)
        if reason is not None:
            return reason
        p, needed = problem, self.workspace_bytes(problem)
        if needed > MOST_BYTES:
            sizes = f"{needed / 2**20:.1f} MiB, most is {MOST_BYTES / 2**20:.0f}"
            return f"needs {sizes} for the smallest band of the weights' gradient"
        sums = bands_of(p, self.m, 1).sums * p.itemsize
        if sums > BAND_BYTES + 2 * p.weight_bytes:
            return f"needs sums of {sums / p.weight_bytes:.0f} times the size of the weights"
        return compiler_missing()

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """One band, without the sums, which are one more copy of the weights."""
        cut = bands_of(problem, self.m, 1)
        return (cut.shared + cut.own) * problem.itemsize

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the instructions of products and transforms."""
        cycles, bands = _work(problem, self.m)
        return 15e-6 + (cycles / threads + 60e3 * bands) / CYCLES_PER_SECOND

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, R, R), with the gradient of the weights."""
        p, workers = problem, useful_threads(_work(problem, self.m)[0] / CYCLES_PER_SECOND)
        cut = bands_of(problem, self.m, workers)
        form, shape = cut.form, cut.shape
        tile = gradient_tile_address(shape)
        codes = (
            *(make(shape.bits, shape.lanes) for make in (pixel_packer_address, clear_address)),
            *(pixels_address(form, filters) for filters in (False, True)),
        )
        transform = sums_address(form)
        x, grad = factor.reshape(-1), grad_output.reshape(-1)
        none = as_read_only(np.zeros(shape.filters, p.dtype))
        with (
            scratch("bands", (cut.shared + workers * cut.own,), p.dtype) as memory,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            for number, band in enumerate(cut.bands):
                places = cut.x_places, cut.grad_places
                transform_band(workers, *codes, x, grad, *places, band, memory, cut.record)
                tiles = int(band[1] * band[3] * cut.record[0].across)
                rest = cut.offsets, none, memory, sums, cut.record
                multiply_band(workers, tile, transform, int(number == 0), tiles, *rest)
            collect_sums(p, shape, cut.taps, sums, out, cut.record)
