"""The gradient of the weights of 1x1 kernels: planes times planes, read where they lie.

Of a strided layer the pixels that its windows see are copied first, some images at a time.

The cut into chunks and pieces depends on the problem alone, and so does the order of every sum.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv import cpu
from fastconv.convolution.base import Array
from fastconv.convolution.blocks import PARTS, split
from fastconv.convolution.tiling import CYCLES_PER_SECOND
from fastconv.kernels.pixel_gradients import add_chunks
from fastconv.kernels.plane_products import (
    LAYOUT,
    PlaneProductShape,
    multiply_planes,
    pick_pixels,
    pixel_picker_address,
    plane_product_address,
)
from fastconv.problem import Conv2dProblem
from fastconv.workspace import scratch

# Vectors of pixels that are added up before their sum is added to the others: longer runs spend
# less on sums across lanes, shorter ones leave more channels to the second-level cache.
PIECE_VECTORS = 256
# Sums of all chunks; the first is always there.
SUMS_BYTES = 2 * 2**20
# Pixels of a strided layer that are copied at a time.
PICKED_BYTES = 4 * 2**20
# Numbers of filters and of channels that one tile may have.
MOST_FILTERS, MOST_CHANNELS = 5, 7


class Cut(NamedTuple):
    """How a weight gradient is cut, as the kernels read it.

    Attributes
    ----------
    shape : PlaneProductShape
    record : ndarray of one record
        The numbers `fastconv.kernels.plane_products.FIELDS`.
    bands : tuple of (int, int, ndarray of int64, (pieces, 5))
        First image, number of images, and pieces of each band: first image in the band and in
        all, number of images, first pixel and number of pixels.
    places : ndarray of int64, (channels,)
        Where a channel's sum lies in those of a tile of filters.
    picked, sums : int
        Elements for copied pixels, and for the sums.
    """

    shape: PlaneProductShape
    record: NDArray[Any]
    bands: tuple[tuple[int, int, NDArray[np.int64]], ...]
    places: NDArray[np.int64]
    picked: int
    sums: int


@lru_cache(maxsize=1024)
def best_shape(problem: Conv2dProblem) -> PlaneProductShape:
    """Return the tile that takes the fewest cycles."""
    p, instructions = problem, cpu.describe().instructions
    lanes = instructions.lanes(p.dtype)
    sizes = product(range(1, MOST_FILTERS + 1), range(1, MOST_CHANNELS + 1))
    found = [
        PlaneProductShape(filters, channels, 8 * p.itemsize, lanes)
        for filters, channels in sizes
        if filters <= p.K_per_group and channels <= p.C_per_group
        if filters * channels + filters + 1 <= instructions.registers
    ]
    return min(found, key=lambda shape: _cycles(p, shape))


def _cycles(problem: Conv2dProblem, shape: PlaneProductShape) -> float:
    """Return about how many cycles one core takes, memory apart."""
    p, tile = problem, shape.filters * shape.channels
    tiles = p.groups * -(-p.K_per_group // shape.filters) * -(-p.C_per_group // shape.channels)
    vectors = p.N * -(-p.P // shape.lanes)
    a_cycle = cpu.describe().instructions.a_cycle
    # A vector's products take turns with its loads, most of which cross lines of the cache.
    step = max(tile / a_cycle, 4, 3.5 * (shape.filters + shape.channels)) + 1
    begun = max(1, vectors / PIECE_VECTORS)
    return tiles * (vectors * step + begun * (60 + 6.0 * tile) + 6 * p.N)


@lru_cache(maxsize=128)
def cut_of(problem: Conv2dProblem) -> Cut:
    """Cut a problem into bands, chunks, pieces and tiles, and give all numbers of the cut."""
    p, shape = problem, best_shape(problem)
    vectors = -(-p.P // shape.lanes)
    pitch = p.H * p.W if p.stride == (1, 1) else (vectors + 1) * shape.lanes
    most = max(1, PICKED_BYTES // (p.C * pitch * p.itemsize)) if p.stride != (1, 1) else p.N
    images = max(1, PIECE_VECTORS // vectors)
    ranges = split(vectors, -(-vectors // PIECE_VECTORS))
    bands = []
    for b0, b1 in split(max(1, p.N), -(-max(1, p.N) // max(1, most))):
        pieces = [
            (n0, b0 + n0, n1 - n0, v0 * shape.lanes, min(v1 * shape.lanes, p.P) - v0 * shape.lanes)
            for n0, n1 in split(b1 - b0, -(-(b1 - b0) // images))
            for v0, v1 in ranges
        ]
        bands.append((b0, b1 - b0, np.array(pieces)))
    row_bytes = max(min(images, p.N) * vectors // len(ranges), 1) * shape.lanes * p.itemsize
    filter_tiles, tap_tiles = (
        -(-p.K_per_group // shape.filters),
        -(-p.C_per_group // shape.channels),
    )
    in_cache = cpu.describe().l2_bytes * 5 // 8 // row_bytes
    blocks = -(-tap_tiles // max(1, in_cache // shape.channels))
    block_tiles = -(-tap_tiles // blocks)
    blocks = -(-tap_tiles // block_tiles)
    slot = -(-shape.filters * shape.channels // shape.lanes) * shape.lanes
    chunk_size = p.groups * filter_tiles * tap_tiles * slot
    chunks = min(
        min(len(pieces) for _, _, pieces in bands),
        PARTS,
        max(1, SUMS_BYTES // (chunk_size * p.itemsize)),
        -(-PARTS // p.groups),
    )
    values: dict[str, int] = {
        **{n: getattr(p, n) for n in ("itemsize", "C", "K", "W", "OH", "OW", "groups")},
        **{n: getattr(p, n) for n in ("C_per_group", "K_per_group", "taps")},
        "x_plane": p.H * p.W,
        "x_pitch": pitch,
        "grad_plane": p.P,
        "down": p.stride[0],
        "across": p.stride[1],
        "chunks": chunks,
        "blocks": blocks,
        "ranges": min(filter_tiles, -(-PARTS // (chunks * p.groups * blocks))),
        "block_tiles": block_tiles,
        "filter_tiles": filter_tiles,
        "tap_tiles": tap_tiles,
        "tile_filters": shape.filters,
        "tile_taps": shape.channels,
        "slot": slot,
        "chunk_size": chunk_size,
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    places = np.empty(p.C_per_group, np.int64)
    for tile in range(tap_tiles):
        c = min(tile * shape.channels, p.C_per_group - shape.channels)
        places[c : c + shape.channels] = tile * slot + np.arange(shape.channels)
    for array in (record, places, *(pieces for _, _, pieces in bands)):
        array.flags.writeable = False
    picked = max(band[1] for band in bands) * p.C * pitch if p.stride != (1, 1) else 0
    return Cut(shape, record, tuple(bands), places, picked, chunks * chunk_size)


def refusal(problem: Conv2dProblem) -> str | None:
    """Return why a problem is refused, None if it is not."""
    p, instructions = problem, cpu.describe().instructions
    if not instructions.masks:
        return f"needs loads by mask, which {instructions.name} vectors do not have"
    cut = cut_of(p)
    if cut.picked * p.itemsize > PICKED_BYTES:
        return f"needs {cut.picked * p.itemsize / 2**20:.1f} MiB for the pixels of one image"
    if cut.sums * p.itemsize > SUMS_BYTES + 2 * p.weight_bytes:
        return f"needs sums of {cut.sums * p.itemsize / p.weight_bytes:.0f} times the weights"
    return None


def workspace_bytes(problem: Conv2dProblem) -> int:
    """Return the bytes of copied pixels and of the sums."""
    cut = cut_of(problem)
    return (cut.picked + cut.sums) * problem.itemsize


def estimated_seconds(problem: Conv2dProblem, num_threads: int) -> float:
    """Return about how long a gradient takes."""
    p, cut = problem, cut_of(problem)
    cycles = _cycles(p, cut.shape) + 3.0 * p.K * p.taps * cut.record[0].chunks
    cycles += 1.0 * p.N * p.C * p.P if cut.picked else 0.0
    moving = (p.input_bytes + p.output_bytes) / 60e9
    return 15e-6 + cycles / num_threads / CYCLES_PER_SECOND + moving


def weight_gradient(problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
    """Fill `out`, (K, C / groups, 1, 1), with the gradient of the weights."""
    p, cut = problem, cut_of(problem)
    if p.N == 0:
        out[...] = 0
        return
    shape, g = cut.shape, cut.record[0]
    tile = plane_product_address(shape)
    x, grad = x.reshape(-1), grad_output.reshape(-1)
    items = int(p.groups * g.chunks * g.blocks * g.ranges)
    with (
        scratch("bands", (cut.picked,), p.dtype) as picked,
        scratch("sums", (cut.sums,), p.dtype) as sums,
    ):
        for first, images, pieces in cut.bands:
            if cut.picked:
                step = p.stride[1] if p.stride[1] <= 2 else 0
                pick = pixel_picker_address(step, shape.bits, shape.lanes)
                pick_pixels(images * p.C, pick, first, x, picked, cut.record)
            rest = pieces, sums, cut.record
            multiply_planes(items, tile, int(first == 0), picked if cut.picked else x, grad, *rest)
        add_chunks(p.K, cut.places, sums, out.reshape(-1), cut.record)
