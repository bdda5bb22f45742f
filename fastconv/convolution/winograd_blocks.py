"""Cutting the tiles of Winograd's method into blocks, and what a cut costs.

As with register tiles these cuts may depend on the number of threads: every output element is
computed in the same way, in whatever block it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv import cpu
from fastconv.convolution.tile_shapes import Lanes, shapes
from fastconv.convolution.tiling import RUN, cycles_of_widths
from fastconv.kernels.tiles import TileShape
from fastconv.kernels.winograd import LAYOUT, Form
from fastconv.problem import Conv2dProblem

# Buffers of one thread; no thread borrows more, whatever the layer.
MOST_BYTES = 4 * 2**20
# Cycles that nothing takes: for what needs more than that, or each byte of it.
IMPOSSIBLE = 1e20
# Starting and joining the threads once.
FORK_CYCLES = 20e3
# What a core gets from the third-level cache or memory while it computes, bytes a cycle.
FAR_BYTES_PER_CYCLE = 8
# Measured: what it costs that transformed filters are written to memory and read but once.
PREPARED_CYCLES_PER_BYTE = 0.25


#: Register tiles of the products: vectors in the lanes' direction, and elements in the other.
PRODUCT_TILES: dict[Lanes, tuple[tuple[int, int], ...]] = {
    "filters": ((2, 14), (2, 10), (2, 8), (2, 4), (2, 1), (1, 14), (1, 4), (1, 1)),
    "pixels": ((3, 8), (2, 8), (1, 8), (1, 1)),
}


class Cut(NamedTuple):
    """How the tiles are cut into blocks, and what that costs.

    Attributes
    ----------
    cost : float
        Cycles of the busiest thread.
    rows, columns : int
        Rows of tiles (counted through all images) and columns of tiles of a block, at most.
    passes : int
        Into how many passes a thread divides its filters.
    shared : bool
        Whether all threads do a block together.
    shape : TileShape
        The register tile of the products.
    fresh : bool
        Whether filters are transformed where they are multiplied, anew for each block.
    """

    cost: float
    rows: int
    columns: int
    passes: int
    shared: bool
    shape: TileShape
    fresh: bool = False


class Cuts(NamedTuple):
    """Many cuts at once: arrays in place of numbers."""

    cost: Any
    rows: Any
    columns: Any
    passes: Any
    shared: Any
    shape: TileShape
    fresh: bool


class Blocks(NamedTuple):
    """A cut as the kernel reads it: `record` holds the numbers `fastconv.kernels.winograd.FIELDS`.

    Attributes
    ----------
    record : ndarray of one record
    offsets : ndarray of int64, (C / groups,)
        Where a channel lies in the transformed input.
    cuts : ndarray of int64
        First rows of tiles of the blocks, then first columns, each with the end.
    blocks, workers : int
        How many blocks there are, how many threads have work.
    shared_bytes, worker_bytes : int
        Memory that the threads share, and that each of them has.
    """

    record: NDArray[Any]
    offsets: NDArray[np.int64]
    cuts: NDArray[np.int64]
    blocks: int
    workers: int
    shared_bytes: int
    worker_bytes: int


def form_of(problem: Conv2dProblem, m: int) -> Form:
    """Return what the transforms are compiled for."""
    # At least four: what neighbouring tiles share is to fit a vector.
    lanes = max(4, cpu.describe().instructions.lanes(problem.dtype))
    return Form(m, problem.R, 8 * problem.itemsize, lanes)


def _tiles(problem: Conv2dProblem, m: int) -> tuple[int, int, int]:
    """Return how many rows of tiles cover all images, and how many rows and columns cover one.

    No images are cut like one.
    """
    down = -(-problem.OH // m)
    return max(1, problem.N) * down, down, -(-problem.OW // m)


@lru_cache(maxsize=4096)
def cheapest(problem: Conv2dProblem, m: int, num_threads: int, once: bool = False) -> Cut:
    """Return the best cut with the best register tile.

    If the weights are used `once`, what their transform takes is part of the cost, wherever it is
    done, and all of them are transformed before only if they are few.
    """
    shapes = list(product_tiles(problem, m))
    found = [cheapest_with(problem, m, shape, num_threads) for shape in shapes]
    if once:
        extra = [_preparing(problem, m, shape, num_threads) for shape in shapes]
        found = [cut._replace(cost=cut.cost + e) for cut, e in zip(found, extra, strict=True)]
        found += [cheapest_with(problem, m, shape, num_threads, True) for shape in shapes]
    return min(found)


@lru_cache(maxsize=4096)
def cheapest_with(
    problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int, fresh: bool = False
) -> Cut:
    """Return the best cut for a register tile, of those whose buffers are small enough."""
    every = cuts(problem, m, shape, num_threads, fresh)
    numbers = every[:5]

    def ranked() -> Iterator[Cut]:
        for at in np.lexsort(numbers[::-1]):
            cost, rows, columns, passes, shared = (column[at].item() for column in numbers)
            yield Cut(cost, rows, columns, passes, shared, shape, fresh)

    fitting = (cut for cut in ranked() if _bytes(problem, m, num_threads, cut) <= MOST_BYTES)
    cut = next(fitting, None)
    if cut is None:
        cut = next(ranked())
        cut = cut._replace(cost=cut.cost + IMPOSSIBLE)
    return cut


def product_tiles(problem: Conv2dProblem, m: int) -> Iterator[TileShape]:
    """Return the register tiles worth considering: few, since each takes a while to compile."""
    total, _, across = _tiles(problem, m)
    line = _products(problem, total * across, problem.C_per_group)
    for over in PRODUCT_TILES:
        for shape in shapes(line, over):
            vectors = (shape.filters if over == "filters" else shape.columns) // shape.lanes
            other = shape.columns if over == "filters" else shape.filters
            if (vectors, other) in PRODUCT_TILES[over]:
                yield shape


def chunk_of(problem: Conv2dProblem) -> int:
    """Return how many channels are summed at a time."""
    return -(-problem.C_per_group // -(-problem.C_per_group // RUN))


def _products(problem: Conv2dProblem, tiles: int, channels: int) -> Conv2dProblem:
    """Return one of the matrix products as a convolution: filters by channels by tiles."""
    p = problem
    sizes = (1, channels, 1, tiles, p.K_per_group, 1, 1)
    return Conv2dProblem(*sizes, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, p.dtype)


def cuts(
    problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int, fresh: bool = False
) -> Cuts:
    """Return the cuts worth considering, with their costs."""
    p = problem
    total, down, across = _tiles(p, m)
    rows = {-(-total // n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128) if n <= total}
    rows |= {n for n in (1, 2, 3, 4, down) if n <= total}
    columns = {-(-across // n) for n in (1, 2, 4, 8, 32, 128) if n <= across}
    channels = chunk_of(p) if fresh else p.C_per_group
    filter_tiles = -(-p.K_per_group // shape.filters)
    ways = list(product((1, 2, 4, 8), (False, True)))
    if fresh:
        share = -(-filter_tiles // num_threads)
        ways = [(-(-share // n), True) for n in (1, 2, 3, 4, 6, 8, 12, 16) if n <= share]
    sizes = [(high, wide) for high, wide in product(rows, columns) if wide == across or high == 1]
    high, wide = np.repeat(np.array(sizes), len(ways), axis=0).T
    passes, shared = np.tile(np.array(ways), (len(sizes), 1)).T
    tiles = high * wide
    alone = cycles_of_widths(_products(p, 1, channels), shape, tiles, tiles)
    every = Cuts(0.0, high, wide, passes, shared.astype(bool), shape, fresh)
    return every._replace(cost=_costs(p, m, num_threads, every, alone))


def _costs(problem: Conv2dProblem, m: int, num_threads: int, cut: Cuts, alone: Any) -> Any:
    """Return about how many cycles the busiest thread takes with each of the cuts.

    One matrix product takes `alone`, of all channels or, with fresh filters, of a chunk of them.
    """
    p, form, shape, passes = problem, form_of(problem, m), cut.shape, cut.passes
    total, _, across = _tiles(p, m)
    alpha, lanes, near = form.alpha, form.lanes, 0.8 * cpu.describe().l2_bytes
    blocks = p.groups * -(-total // cut.rows) * -(-across // cut.columns)
    filter_tiles = -(-p.K_per_group // shape.filters)
    tiles = cut.rows * cut.columns
    vectors, across_vectors = -(-tiles // lanes), -(-cut.columns // lanes)
    # Measured: rows of the image deinterleaved and interleaved, and tiles transformed.
    scattered = (cut.rows * m + form.r - 1) * across_vectors * (10 + 6.0 * m)
    scattered = np.where(cut.columns * m + form.r - 1 <= 2 * lanes, scattered / 2, scattered)
    gathered = cut.rows * m * across_vectors * (10 + 5.0 * m)
    inputs = p.C_per_group * (60 + vectors * 7.0 * alpha**2 + scattered)
    outputs = p.K_per_group * (60 + vectors * 4.0 * alpha**2 + gathered)
    products = alpha**2 * alone
    room = vectors * lanes
    produced: Any
    weights: Any
    all_transformed, produced, weights = (
        float(alpha**2 * p.itemsize) * number
        for number in (p.C_per_group * room, p.K_per_group * room, p.C_per_group * p.K_per_group)
    )
    # Blocks that all threads do together, or each thread its own.
    share = np.where(cut.shared, 1 / num_threads, 1.0)
    fork = np.where(cut.shared, 2 * FORK_CYCLES, 0.0)
    count = np.where(cut.shared, blocks, -(-blocks // num_threads))
    uneven = -(-filter_tiles // num_threads) * num_threads
    products = np.where(cut.shared, products * uneven / filter_tiles, products)
    transformed, produced, weights = (n * share for n in (all_transformed, produced, weights))
    if cut.fresh:
        chunks = -(-p.C_per_group // chunk_of(p))
        # Sums are read and written for each chunk, whose filters stay near.
        products = products * chunks + produced / share / p.itemsize / lanes * (chunks - 1) * 2
        own = (weights * (1 + p.R * p.S / alpha**2) + produced) / passes
        products = products + _transform_cycles(p, form, shape)
        # Read once a pass.
        far: Any = np.where(all_transformed + own > near, all_transformed * passes, 0.0)
        far += np.where(own > near, 2 * weights + 2 * produced * chunks, 0.0)
    else:
        own = transformed + produced / passes
        far = np.where(own + weights / passes > near, weights, 0.0)
        again = np.where(cut.shared, passes, 1)
        far += np.where(own > near, 2 * transformed * again + 2 * produced, 0.0)
    cost = count * ((inputs + outputs + products) * share + fork + far / FAR_BYTES_PER_CYCLE / 2)
    return cost + IMPOSSIBLE * np.maximum(0.0, own * 1.2 - MOST_BYTES)


def _transform_cycles(problem: Conv2dProblem, form: Form, shape: TileShape) -> float:
    """Return about how many cycles a core takes to lay out a group's filters and transform them."""
    filters = -(-problem.K_per_group // shape.filters) * shape.filters
    vectors = problem.C_per_group * filters / form.lanes
    return vectors * (60 + 5.0 * form.r**2 + 9.0 * form.alpha**2)


def _preparing(problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int) -> float:
    """Return about how many cycles the transform of all filters takes, used once.

    They must not be more than a call may borrow: one copy of the weights, and what threads may.
    """
    p, form = problem, form_of(problem, m)
    size = p.groups * form.alpha**2 * p.itemsize * -(-p.K_per_group // shape.filters)
    size *= odd_lines(p.C_per_group * shape.filters, p.itemsize)
    cycles = p.groups * _transform_cycles(p, form, shape) / num_threads
    beyond = max(0, size - p.weight_bytes - num_threads * MOST_BYTES)
    return cycles + size * PREPARED_CYCLES_PER_BYTE + IMPOSSIBLE * beyond


def _bytes(problem: Conv2dProblem, m: int, num_threads: int, cut: Cut) -> float:
    """Return at most how many bytes a thread borrows; `blocks_of` adds up how many it is."""
    p, form, shape, columns = problem, form_of(problem, m), cut.shape, cut.columns
    alpha, lanes = form.alpha, form.lanes
    filter_tiles = -(-p.K_per_group // shape.filters)
    workers = min(num_threads, filter_tiles) if cut.shared else 1
    # Whole tiles of filters, be there ever so few filters.
    pass_filters = -(-filter_tiles // (workers * cut.passes)) * shape.filters
    room = max(_up(cut.rows * columns, lanes) + lanes, _up(shape.columns, lanes))
    planes = alpha**2 * room * (p.C_per_group / workers + pass_filters)
    rows = min(cut.rows, -(-p.OH // m))
    scattered = m * alpha * ((rows + (alpha - 1) // m) * columns + lanes)
    gathered = m * m * (_up(rows * columns, lanes) + lanes)
    # Odd numbers of cache lines, and what is read beyond the ends.
    around = 3 * 64 * alpha**2 + 6 * (shape.columns + lanes + 16) * p.itemsize
    filters = sum(_filter_elements(p, form, shape, pass_filters if cut.fresh else 0))
    return p.itemsize * (planes + scattered + gathered + filters) + around


def _filter_elements(
    problem: Conv2dProblem, form: Form, shape: TileShape, filters: int
) -> tuple[int, int]:
    """Return the elements of a chunk of a tile of filters, and of fresh ones transformed."""
    step = odd_lines(chunk_of(problem) * shape.filters, problem.itemsize)
    return form.r**2 * step, filters // shape.filters * form.alpha**2 * step


@lru_cache(maxsize=128)
def blocks_of(
    problem: Conv2dProblem,
    m: int,
    shape: TileShape,
    num_threads: int,
    fresh: bool = False,
    pooled: bool = False,
) -> Blocks:
    """Return the cut that suits so many threads and a register tile, with all its numbers.

    If the output is `pooled`, the maxima of 2 x 2 squares are written.
    """
    p, form = problem, form_of(problem, m)
    cut = cheapest_with(problem, m, shape, num_threads, fresh)
    (total, down, across), lanes, alpha = _tiles(p, m), form.lanes, form.alpha
    row_starts, column_starts = _starts(total, cut.rows), _starts(across, cut.columns)
    wide = max(stop - start for start, stop in pairwise(column_starts))
    high = min(down, max(stop - start for start, stop in pairwise(row_starts)))
    pitch = max(_pitch(*some, down, wide, lanes) for some in pairwise(row_starts))
    tiles = max(b - a for a, b in pairwise(row_starts)) * wide
    # Tiles of sums that are added to must not overlap, nor reach into the next row.
    pitch = max(pitch, _up(_up(tiles, shape.columns) if fresh else shape.columns, lanes))
    filter_tiles = -(-p.K_per_group // shape.filters)
    blocks = p.groups * (len(row_starts) - 1) * (len(column_starts) - 1)
    workers = min(num_threads, filter_tiles if cut.shared else blocks)
    pass_tiles = -(-filter_tiles // (workers * cut.passes if cut.shared else cut.passes))
    in_stride = odd_lines(p.C_per_group * pitch, p.itemsize)
    product_stride = odd_lines(pass_tiles * shape.filters * pitch, p.itemsize)
    in_plane = (high + (alpha - 1) // m) * wide + lanes
    gather_plane = _up(high * wide, lanes) + lanes
    # What tiles and transforms read beyond the last element belongs to the buffer.
    filters = _filter_elements(p, form, shape, pass_tiles * shape.filters if fresh else 0)
    sizes = (
        *(m * alpha * in_plane, m * m * gather_plane, alpha**2 * product_stride),
        *(*filters, alpha**2 * in_stride),
    )
    ends = np.cumsum([_up(n + shape.columns + lanes, 16) for n in sizes]) * p.itemsize
    chunk, shrink = chunk_of(p), 2 if pooled else 1
    values: dict[str, int] = {
        **{name: getattr(p, name) for name in ("itemsize", "C", "K", "H", "W")},
        **{name: getattr(p, name) for name in ("C_per_group", "K_per_group")},
        **{"OH": p.OH // shrink, "OW": p.OW // shrink, "out_m": m // shrink},
        "run": chunk,
        "x_row": 0,
        "x_step": 1,
        "out_row": 0,
        "out_plane": pitch,
        "m": m,
        "products": alpha**2,
        "chunk": chunk,
        "chunks": -(-p.C_per_group // chunk),
        "pad_top": p.padding[0][0],
        "pad_left": p.padding[1][0],
        "tile_rows": down,
        "row_blocks": len(row_starts) - 1,
        "column_blocks": len(column_starts) - 1,
        "blocks": blocks,
        "workers": workers,
        "shared": cut.shared,
        "fresh": fresh,
        "tile_filters": shape.filters,
        "tile_columns": shape.columns,
        "filter_tiles": filter_tiles,
        "pass_tiles": pass_tiles,
        "pitch": pitch,
        "scatter_plane": in_plane,
        "gather_plane": gather_plane,
        "in_stride": in_stride,
        "product_stride": product_stride,
        "weight_step": odd_lines((chunk if fresh else p.C_per_group) * shape.filters, p.itemsize),
        "shared_bytes": int(ends[5] - ends[4]) if cut.shared else 0,
        "worker_bytes": int(ends[4 if cut.shared else 5]),
        "gather_begin": int(ends[0]),
        "products_begin": int(ends[1]),
        "laid_out_begin": int(ends[2]),
        "filters_begin": int(ends[3]),
        "inputs_begin": int(ends[4]),
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    offsets = np.arange(p.C_per_group) * pitch
    cuts = np.array([*row_starts, *column_starts])
    for array in (record, offsets, cuts):
        array.flags.writeable = False
    memory = values["shared_bytes"], values["worker_bytes"]
    return Blocks(record, offsets, cuts, blocks, workers, *memory)


def _starts(total: int, size: int) -> list[int]:
    """Return where blocks of at most `size` begin, nearly equal ones, and where the last ends."""
    count = -(-total // size)
    return [block * total // count for block in range(count + 1)]


def _pitch(first: int, last: int, down: int, columns: int, lanes: int) -> int:
    """Return how many elements a channel's tiles of a block take, written in whole vectors."""
    pitch, row = 0, first
    while row < last:
        rows = min(last - row, down - row % down)
        pitch = max(pitch, (row - first) * columns + _up(rows * columns, lanes))
        row += rows
    return _up(pitch, lanes)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def odd_lines(elements: int, itemsize: int) -> int:
    """Return at least `elements` that are an odd number of cache lines: not all in one set."""
    line = 64 // itemsize
    lines = -(-elements // line)
    return (lines + 1 - lines % 2) * line
