"""The gradient of the weights in register tiles: pixels take the place of taps.

``gradient[k, c, r, s] = sum over n, i, j of x[n, c, h, w] * grad[n, k, i, j]`` is a product of
the output's gradient, filters by pixels, and the input, pixels by taps. No column matrix is made:
a band of the input is laid out once with the channels of a pixel side by side, and a table of
offsets says where each pixel finds its element; the taps (r, s) only move the beginning.

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
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.kernels.weight_grad_loops import (
    LAYOUT,
    GradientShape,
    clear_address,
    collect,
    collector_address,
    gradient_tile_address,
    lay_out,
    multiply,
    pixel_packer_address,
    strided_packer_address,
)
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# What is laid out of one band; no layer borrows more.
BAND_BYTES = 4 * 2**20
# Pixels of a band that make the most of what is begun anew for each.
ENOUGH_PIXELS = 8192
# A band is laid out in so many pieces at least for each tile: enough for all threads.
CHUNKS = 4
#: Columns of a tile, for vectors of filters: as many sums as there are registers for.
COLUMNS = ((2, (13, 12, 10, 8, 7, 6, 4, 3, 1)), (1, (14, 8, 4, 1)))


class Bands(NamedTuple):
    """How a weight gradient is cut, as the kernels read it.

    Attributes
    ----------
    shape : GradientShape
    record : ndarray of one record
        The numbers `fastconv.kernels.weight_grad_loops.FIELDS`.
    bands : ndarray of int64, (bands, 4)
        First image and number of images, first row of output and number of rows.
    offsets : ndarray of int64
        Where each pixel of a band reads, in elements.
    x_places, grad_places : ndarray of int64
        Where elements of an image's rows, of the input and of the gradient, go.
    blocks : ndarray of int64, (2 * blocks,)
        Where blocks of columns begin in the input, and which column is their first.
    taps : ndarray of int64
        Where each tap (c, r, s) lies in the sums of a tile of filters.
    memory, sums : int
        Elements for what is laid out, and for the sums.
    """

    shape: GradientShape
    record: NDArray[Any]
    bands: NDArray[np.int64]
    offsets: NDArray[np.int64]
    x_places: NDArray[np.int64]
    grad_places: NDArray[np.int64]
    blocks: NDArray[np.int64]
    taps: NDArray[np.int64]
    memory: int
    sums: int


def columns_of(problem: Conv2dProblem, columns: int) -> tuple[int, int, int]:
    """Return channels that stand side by side, tiles of them, and blocks of columns of a row.

    The columns of a tile are channels; with few channels they go on through the taps of a row,
    whose channels follow in memory.
    """
    p = problem
    if p.C_per_group < columns and p.dilation[1] == 1:
        return p.C_per_group, 1, -(-p.C_per_group * p.S // columns)
    tiles = -(-p.C_per_group // columns)
    return columns, tiles, tiles * p.S


@lru_cache(maxsize=1024)
def gradient_shape(problem: Conv2dProblem) -> GradientShape:
    """Return the tile that takes the fewest cycles."""
    p, instructions = problem, cpu.describe().instructions
    lanes = instructions.lanes(p.dtype)
    found = [
        GradientShape(vectors * lanes, columns, 8 * p.itemsize, lanes)
        for vectors, many in COLUMNS
        for columns in many
        if vectors * (columns + 1) + 1 <= instructions.registers
    ]
    return min(found, key=lambda shape: _cycles(p, shape))


def _cycles(problem: Conv2dProblem, shape: GradientShape) -> float:
    """Return about how many cycles one core multiplies for a pixel, memory apart."""
    p, vectors = problem, shape.filters // shape.lanes
    calls = p.groups * -(-p.K_per_group // shape.filters) * p.R * columns_of(p, shape.columns)[2]
    # Two loads a cycle; a sum takes up to four cycles.
    a_cycle = cpu.describe().instructions.a_cycle
    loads = shape.columns * (1.0 if vectors > 1 else 1.2) + vectors
    step = max(vectors * shape.columns / a_cycle, loads / 2, 4)
    if shape.columns * p.itemsize % 32:  # pixels lie across two lines of the cache
        step *= 1.06
    return calls * (step + 0.2 + 0.02 * vectors)


def wanted_pixels(problem: Conv2dProblem) -> Conv2dProblem:
    """Return a problem whose input has those pixels only that a strided 1 x 1 kernel reads."""
    p = problem
    if p.R * p.S > 1 or p.stride[1] != 2 or any(map(any, p.padding)):
        return p
    sizes = (p.N, p.C, p.OH, p.OW, p.K, 1, 1)
    return Conv2dProblem(*sizes, (1, 1), p.padding, p.dilation, p.groups, p.dtype)


@lru_cache(maxsize=128)
def bands_of(problem: Conv2dProblem) -> Bands:
    """Cut a problem into bands, and give all numbers of the cut."""
    p = wanted_pixels(problem)
    shape = gradient_shape(p)
    wide, tiles, many = columns_of(p, shape.columns)
    filter_tiles = -(-p.K_per_group // shape.filters)
    # Columns behind the last window are laid out too, where they do no harm.
    padded = max((p.OW - 1) * p.stride[1] + extent(p.S, p.dilation[1]), p.padding[1][0] + p.W)
    span = extent(p.R, p.dilation[0])

    def sizes(images: int, rows: int) -> tuple[int, int, int]:
        """Return the height of a band, and the elements of a tile of the input and gradient."""
        high = (rows - 1) * p.stride[0] + span
        behind = shape.columns + shape.lanes  # what tiles read beyond the last pixel
        x_size = -(-(images * high * padded * wide + behind) // 16) * 16
        return high, x_size, -(-images * rows * p.OW * shape.filters // 16) * 16

    def elements(images: int, rows: int) -> int:
        _, x_size, grad_size = sizes(images, rows)
        return p.groups * (tiles * x_size + filter_tiles * grad_size)

    images = max(1, min(p.N, -(-ENOUGH_PIXELS // p.P)))
    while images > 1 and elements(images, p.OH) * p.itemsize > BAND_BYTES:
        images -= 1
    rows = p.OH
    while rows > 1 and (
        elements(images, rows) * p.itemsize > BAND_BYTES or rows * p.OW > 2 * ENOUGH_PIXELS
    ):
        rows -= 1
    bands = [
        (n0, n1 - n0, i0, i1 - i0)
        for n0, n1 in split(max(1, p.N), -(-max(1, p.N) // images))
        for i0, i1 in split(p.OH, -(-p.OH // rows))
    ]
    images, rows = max(band[1] for band in bands), max(band[3] for band in bands)
    high, x_size, grad_size = sizes(images, rows)
    per_row = many * shape.columns  # columns of a row of the kernel, and some that nobody wants
    values: dict[str, int] = {
        **{n: getattr(p, n) for n in ("C", "K", "H", "W", "P", "OW", "R", "groups")},
        "C_per_group": p.C_per_group,
        "x_plane": problem.H * problem.W,
        "x_apart": 0 if p is problem else problem.stride[0] * problem.W,
        **collecting(p, shape, p.R * per_row * shape.filters),
        "run": RUN,
        "x_row": 0,
        "x_step": 1,
        "out_row": shape.filters,
        "out_plane": 0,
        "stride_h": p.stride[0],
        "pad_top": p.padding[0][0],
        "dilation_h": p.dilation[0],
        "padded": padded,
        "clear": any(any(sides) for sides in p.padding) or padded > p.W,
        "high": high,
        "channel_tiles": tiles,
        "tile_channels": wide,
        "chunks": -(-CHUNKS // images),
        "blocks": many,
        "x_size": x_size,
        "grad_size": grad_size,
        "sums_size": per_row * shape.filters,
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    n, i, j = np.indices((images, rows, p.OW)).reshape(3, -1)
    offsets = ((n * high + i * p.stride[0]) * padded + j * p.stride[1]) * wide
    h, w = np.indices((min(p.H, high), p.W)).reshape(2, -1)
    x_places = h * padded + w + p.padding[1][0]
    grad_places = np.arange(rows * p.OW)
    s, c = np.indices((p.S, p.C_per_group))
    if tiles == 1 and wide == p.C_per_group < shape.columns and p.dilation[1] == 1:
        starts = np.arange(many) * shape.columns
        blocks, columns = np.stack([starts, starts], axis=1), s * p.C_per_group + c
    else:
        tile, tap = np.indices((tiles, p.S)).reshape(2, -1)
        begins = tile * x_size + tap * p.dilation[1] * wide
        blocks = np.stack([begins, (tile * p.S + tap) * shape.columns], axis=1)
        columns = (c // wide * p.S + s) * shape.columns + c % wide
    c, r, s = np.indices((p.C_per_group, p.R, p.S)).reshape(3, -1)
    taps = whole_vectors((r * per_row + columns[s, c]) * shape.filters, shape.lanes)
    arrays = (np.array(bands), offsets, x_places, grad_places, blocks.reshape(-1), taps)
    for array in (record, *arrays):
        array.flags.writeable = False
    memory = p.groups * (tiles * x_size + filter_tiles * grad_size)
    sums = p.groups * filter_tiles * p.R * per_row * shape.filters
    return Bands(shape, record, *arrays, memory, sums)


def collecting(problem: Conv2dProblem, shape: GradientShape, tile_sums: int) -> dict[str, int]:
    """Return the numbers `fastconv.kernels.weight_grad_loops.COLLECTED`."""
    p = problem
    # Enough pieces for all threads, each of whole vectors of taps.
    pieces = min(CHUNKS, -(-p.taps // shape.lanes))
    step = -(-p.taps // (pieces * shape.lanes)) * shape.lanes
    return {
        "itemsize": p.itemsize,
        "K_per_group": p.K_per_group,
        "lanes": shape.lanes,
        "taps": p.taps,
        "tap_step": step,
        "tap_chunks": -(-p.taps // step),
        "filter_tiles": -(-p.K_per_group // shape.filters),
        "tile_filters": shape.filters,
        "tile_sums": tile_sums,
    }


def whole_vectors(places: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    """Return places that go on to a multiple of `lanes` of them."""
    return np.pad(places, (0, -len(places) % lanes), mode="edge")


def collect_sums(
    problem: Conv2dProblem,
    shape: GradientShape,
    places: NDArray[np.int64],
    sums: Array,
    out: Array,
    record: NDArray[Any],
) -> None:
    """Fill `out` with sums of tiles of filters, where `places` says how taps lie in a tile."""
    p, turn = problem, collector_address(shape.bits, shape.lanes)
    pieces = p.groups * -(-p.K_per_group // shape.lanes) * int(record[0].tap_chunks)
    most = useful_threads(p.K * p.taps / CYCLES_PER_SECOND)
    collect.on(most, pieces, turn, places, sums.reshape(-1), out.reshape(-1), record)


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> tuple[float, int]:
    """Return about how many cycles one core takes, and the number of bands."""
    p, cut = wanted_pixels(problem), bands_of(problem)
    g, lanes = cut.record[0], cut.shape.lanes
    # Both factors are far from the core; the faster it is, the more that tells.
    a_cycle = cpu.describe().instructions.a_cycle
    multiplying = (1 + 0.2 * a_cycle) * p.N * p.P * _cycles(p, cut.shape)
    # Elements packed, those that only fill vectors included; blocks that are not whole take
    # longer, and so do single elements.
    filters = p.groups * g.filter_tiles * g.tile_filters
    packing = p.N * p.P * filters * (1.8 if p.K_per_group % lanes == 0 else 2.6)
    channels = p.groups * g.channel_tiles * g.tile_channels
    packing += p.N * p.H * p.W * channels * (1.8 if p.C_per_group % lanes == 0 else 2.6)
    placing = 1.0 * p.K * p.taps
    adding = len(cut.bands) * cut.sums / lanes * 4.0
    return multiplying + float(packing) + placing + adding, len(cut.bands)


class ImplicitGemmWeightGrad(Gradient):
    """Sums over pixels in registers."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take what needs little memory for a band, and for the sums."""
        cut = bands_of(problem)
        band, sums = cut.memory * problem.itemsize, cut.sums * problem.itemsize
        if band > BAND_BYTES:
            sizes = f"{band / 2**20:.1f} MiB, most is {BAND_BYTES / 2**20:.0f}"
            return f"needs {sizes} for the smallest band of the weights' gradient"
        if sums > BAND_BYTES + 2 * problem.weight_bytes:
            return f"needs sums of {sums / problem.weight_bytes:.0f} times the size of the weights"
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and copies."""
        cycles, bands = _work(problem)
        return 15e-6 + (cycles / threads + 30e3 * bands) / CYCLES_PER_SECOND

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """One band, without the sums, which are one more copy of the weights."""
        return bands_of(problem).memory * problem.itemsize

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, R, S), with the gradient of the weights."""
        p, cut = problem, bands_of(problem)
        shape, g = cut.shape, cut.record[0]
        tile = gradient_tile_address(shape)
        makers = pixel_packer_address, strided_packer_address, clear_address
        codes = [make(shape.bits, shape.lanes) for make in makers]
        x, grad = factor.reshape(-1), grad_output.reshape(-1)
        none = as_read_only(np.zeros(shape.filters, p.dtype))
        tiles = int(p.groups * (g.channel_tiles + g.filter_tiles) * g.chunks)
        weights = int(p.groups * g.filter_tiles * p.R * g.blocks)
        most = useful_threads(_work(p)[0] / CYCLES_PER_SECOND)
        with (
            scratch("bands", (cut.memory,), p.dtype) as memory,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            for number, band in enumerate(cut.bands):
                places = cut.x_places, cut.grad_places
                lay_out.on(
                    most, tiles * int(band[1]), *codes, x, grad, *places, band, memory, cut.record
                )
                pixels = int(band[1] * band[3]) * p.OW
                rest = cut.blocks, none, memory, sums, cut.record
                multiply.on(most, weights, tile, int(number == 0), pixels, cut.offsets, *rest)
            collect_sums(p, shape, cut.taps, sums, out, cut.record)
