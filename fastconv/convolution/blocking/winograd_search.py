"""Which blocks Winograd's tiles are cut into: every cut with its cost, and the cheapest.

As with register tiles these cuts may depend on the number of threads: every output element is
computed in the same way, in whatever block it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen.winograd_transforms import Form
from fastconv.convolution.blocking.tile_search import RUN, cycles_of_widths
from fastconv.convolution.blocking.tile_shapes import Lanes, shapes
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu

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


class _Cuts(NamedTuple):
    """Many cuts at once: arrays in place of numbers."""

    cost: Any
    rows: Any
    columns: Any
    passes: Any
    shared: Any
    shape: TileShape
    fresh: bool


def form_of(problem: Conv2dProblem, m: int) -> Form:
    """Return what the transforms are compiled for."""
    # At least four: what neighbouring tiles share is to fit a vector.
    lanes = max(4, cpu.describe().instructions.lanes(problem.dtype))
    return Form(m, problem.R, 8 * problem.itemsize, lanes)


def tiles_of(problem: Conv2dProblem, m: int) -> tuple[int, int, int]:
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
    ranked = ranked_cuts(problem, m, shape, num_threads, fresh)
    cheapest_of_all = next(ranked)
    for cut in chain((cheapest_of_all,), ranked):
        if _bytes(problem, m, num_threads, cut) <= MOST_BYTES:
            return cut
    return cheapest_of_all._replace(cost=cheapest_of_all.cost + IMPOSSIBLE)


def ranked_cuts(
    problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int, fresh: bool = False
) -> Iterator[Cut]:
    """Return the cuts worth considering, the cheapest first."""
    numbers = _cuts(problem, m, shape, num_threads, fresh)[:5]
    for at in np.lexsort(numbers[::-1]):
        cost, rows, columns, passes, shared = (column[at].item() for column in numbers)
        yield Cut(cost, rows, columns, passes, shared, shape, fresh)


def product_tiles(problem: Conv2dProblem, m: int) -> Iterator[TileShape]:
    """Return the register tiles worth considering: few, since each takes a while to compile."""
    total, _, across = tiles_of(problem, m)
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


def _cuts(
    problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int, fresh: bool = False
) -> _Cuts:
    """Return the cuts worth considering."""
    p = problem
    total, down, across = tiles_of(p, m)
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
    every = _Cuts(0.0, high, wide, passes, shared.astype(bool), shape, fresh)
    return every._replace(cost=_costs(p, m, num_threads, every, alone))


def _costs(problem: Conv2dProblem, m: int, num_threads: int, cut: _Cuts, alone: Any) -> Any:
    """Return about how many cycles the busiest thread takes with each of the cuts.

    One matrix product takes `alone`, of all channels or, with fresh filters, of a chunk of them.
    """
    p, form, shape, passes = problem, form_of(problem, m), cut.shape, cut.passes
    total, _, across = tiles_of(p, m)
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
    room = max(rounded_up(cut.rows * columns, lanes) + lanes, rounded_up(shape.columns, lanes))
    planes = alpha**2 * room * (p.C_per_group / workers + pass_filters)
    rows = min(cut.rows, -(-p.OH // m))
    scattered = m * alpha * ((rows + (alpha - 1) // m) * columns + lanes)
    gathered = m * m * (rounded_up(rows * columns, lanes) + lanes)
    # Odd numbers of cache lines, and what is read beyond the ends.
    around = 3 * 64 * alpha**2 + 6 * (shape.columns + lanes + 16) * p.itemsize
    filters = sum(filter_elements(p, form, shape, pass_filters if cut.fresh else 0))
    return p.itemsize * (planes + scattered + gathered + filters) + around


def filter_elements(
    problem: Conv2dProblem, form: Form, shape: TileShape, filters: int
) -> tuple[int, int]:
    """Return the elements of a chunk of a tile of filters, and of fresh ones transformed."""
    step = odd_lines(chunk_of(problem) * shape.filters, problem.itemsize)
    return form.r**2 * step, filters // shape.filters * form.alpha**2 * step


def rounded_up(number: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not below `number`."""
    return -(-number // unit) * unit


def odd_lines(elements: int, itemsize: int) -> int:
    """Return at least `elements` that are an odd number of cache lines: not all in one set."""
    line = 64 // itemsize
    lines = -(-elements // line)
    return (lines + 1 - lines % 2) * line
