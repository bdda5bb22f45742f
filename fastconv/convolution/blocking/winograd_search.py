"""The search for the cheapest partition of Winograd tiles into blocks.

As with register tiles these partitions may depend on the thread count: every output element is
computed in the same way in any block. All partitions with all register tiles are compared at once,
in arrays of three axes: block sizes, schedules, register tiles.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen.winograd_transforms import Form
from fastconv.convolution.blocking.balance import AxisCut, busiest_share, imbalance_penalty
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND, RUN, cycles, sizes_of
from fastconv.convolution.blocking.tile_shapes import Over, shapes
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu

# The limit for the buffers of one thread.
MOST_BYTES = 4 * 2**20
# A penalty in cycles for exceeding the limit, per byte.
IMPOSSIBLE = 1e20
# Cycles to fork and join the threads once.
FORK_CYCLES = 20e3
# Bandwidth of a core from L3 or memory while it computes.
MEMORY_BYTES_PER_CYCLE = 8
# Measured: the cost of storing transformed weights that are read only once.
PREPARED_CYCLES_PER_BYTE = 0.25


#: Register tiles of the products: vectors along the vectorized axis, and elements along the other.
PRODUCT_TILES: dict[Over, tuple[tuple[int, int], ...]] = {
    "channels": ((2, 14), (2, 10), (2, 8), (2, 4), (2, 1), (1, 14), (1, 4), (1, 1)),
    "width": ((3, 8), (2, 8), (1, 8), (1, 1)),
}


class Cut(NamedTuple):
    """A partition of the tiles into blocks, and its cost.

    Attributes
    ----------
    cost, work : float
        Cycles of the busiest thread, and of all threads together.
    rows, columns : int
        Rows of tiles (counted through all images) and columns of tiles of a block, at most.
    passes : int
        The number of passes over a thread's output channels.
    shared : bool
        Whether all threads compute a block together.
    shape : TileShape
        The register tile of the products.
    fresh : bool
        Whether weights are transformed together with the products, again for each block.
    threads : int
        The thread count of the search.
    """

    cost: float
    work: float
    rows: int
    columns: int
    passes: int
    shared: bool
    shape: TileShape
    fresh: bool
    threads: int

    @property
    def seconds(self) -> float:
        """The estimated time."""
        return 10e-6 + self.cost / CYCLES_PER_SECOND


def stride_refusal(problem: Conv2dProblem) -> str | None:
    """Return why a stride is refused, None if it is not."""
    return None if problem.stride == (1, 1) else f"needs stride 1, got {problem.stride}"


def kernel_refusal(problem: Conv2dProblem) -> str | None:
    """Return why a kernel is refused, None if it is not."""
    p = problem
    if (p.R, p.S) not in ((3, 3), (5, 5)):
        return f"needs a kernel of 3 x 3 or 5 x 5, got {p.R} x {p.S}"
    return None if p.dilation == (1, 1) else f"needs dilation 1, got {p.dilation}"


def least_seconds(problem: Conv2dProblem, m: int, num_threads: int) -> float:
    """Return a lower bound of the time, the input and output transforms of `_costs` alone."""
    p, form, (total, _, across) = problem, form_of(problem, m), tiles_of(problem, m)
    vectors, products = total * across / form.lanes, form.alpha**2
    cycles = p.C * (60 + vectors * 7.0 * products) + p.K * (60 + vectors * 4.0 * products)
    return 10e-6 + cycles / num_threads / CYCLES_PER_SECOND


def form_of(problem: Conv2dProblem, m: int) -> Form:
    """Return the form of the transforms."""
    # At least four lanes: the columns that neighbouring tiles share must fit a vector.
    lanes = max(4, cpu.describe().instructions.lanes(problem.dtype))
    return Form(m, problem.R, 8 * problem.itemsize, lanes)


def tiles_of(problem: Conv2dProblem, m: int) -> tuple[int, int, int]:
    """Return the tile rows of all images (at least one image), tile rows and columns of one."""
    down = -(-problem.OH // m)
    return max(1, problem.N) * down, down, -(-problem.OW // m)


@lru_cache(maxsize=4096)
def cheapest(problem: Conv2dProblem, m: int, num_threads: int, once: bool = False) -> Cut:
    """Return the best partition with the best register tile.

    If the weights are used `once`, their transform is part of the cost. It is done in advance, if
    the weights are few, or together with the products.
    """
    tiles = product_tiles(problem, m)
    every = _Cuts(problem, m, tiles, num_threads, False)
    if not once:
        return every.best()
    fresh = _Cuts(problem, m, tiles, num_threads, True)
    return min(every.best(_preparing(problem, m, every, num_threads)), fresh.best())


@lru_cache(maxsize=4096)
def cheapest_with(
    problem: Conv2dProblem, m: int, shape: TileShape, num_threads: int, fresh: bool = False
) -> Cut:
    """Return the best partition for a register tile."""
    return _Cuts(problem, m, (shape,), num_threads, fresh).best()


def fits_one_thread(problem: Conv2dProblem, m: int) -> bool:
    """Return whether the smallest blocks certainly fit the limit for one thread."""
    _, _, across = tiles_of(problem, m)
    columns = -(-across // max(n for n in COLUMN_PARTS if n <= across))
    tile = next(iter(product_tiles(problem, m)))
    smallest = Cut(0.0, 0.0, 1, columns, 8, False, tile, False, 1)
    return bool(most_bytes(problem, m, smallest) <= MOST_BYTES)


def product_tiles(problem: Conv2dProblem, m: int) -> tuple[TileShape, ...]:
    """Return the register tiles that are considered: few, since each must be compiled."""
    total, _, across = tiles_of(problem, m)
    line = _products(problem, total * across, problem.C_per_group)
    found = []
    for over in PRODUCT_TILES:
        for shape in shapes(line, over):
            vectors = (shape.filters if over == "channels" else shape.columns) // shape.lanes
            other = shape.columns if over == "channels" else shape.filters
            if (vectors, other) in PRODUCT_TILES[over]:
                found.append(shape)
    return tuple(found)


def chunk_of(problem: Conv2dProblem) -> int:
    """Return the number of channels of a partial sum."""
    return -(-problem.C_per_group // -(-problem.C_per_group // RUN))


def _products(problem: Conv2dProblem, tiles: int, channels: int) -> Conv2dProblem:
    """Return one of the matrix products as a convolution: filters by channels by tiles."""
    p = problem
    sizes = (1, channels, 1, tiles, p.K_per_group, 1, 1)
    return Conv2dProblem(*sizes, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, p.dtype)


#: The numbers of parts of tile rows and tile columns that are considered.
ROW_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
COLUMN_PARTS = (1, 2, 4, 8, 32, 128)


class _Cuts:
    """All partitions that are considered: arrays (block sizes, schedules, register tiles)."""

    def __init__(
        self,
        problem: Conv2dProblem,
        m: int,
        tiles: tuple[TileShape, ...],
        num_threads: int,
        fresh: bool,
    ) -> None:
        p, self.tiles, self.fresh, self.threads = problem, tiles, fresh, num_threads
        total, down, across = tiles_of(p, m)
        rows = {-(-total // n) for n in ROW_PARTS if n <= total}
        rows |= {n for n in (1, 2, 3, 4, down) if n <= total}
        columns = {-(-across // n) for n in COLUMN_PARTS if n <= across}
        sizes = [
            (high, wide)
            for high, wide in product(sorted(rows), sorted(columns))
            if wide == across or high == 1
        ]
        self.costs: Any = 0.0
        self.imbalance_penalty: Any = 1.0
        self.rows, self.columns = np.array(sizes).T.reshape(2, -1, 1, 1)
        self.filters = np.array([tile.filters for tile in tiles])
        self.tile_columns = np.array([tile.columns for tile in tiles])
        filter_tiles = -(-p.K_per_group // self.filters)
        if fresh:
            parts = np.array((16, 12, 8, 6, 4, 3, 2, 1))[:, np.newaxis]
            share = -(-filter_tiles // num_threads)
            self.passes, self.shared = -(-share // parts), np.ones((8, 1), bool)
            self.costs = self.costs + np.where(parts <= share, 0.0, np.inf)
        else:
            schedules = np.array(list(product((1, 2, 4, 8), (False, True))))
            self.passes, self.shared = schedules.T.reshape(2, -1, 1)
            self.shared = self.shared.astype(bool)
        # One matrix product of all channels or, with fresh filters, of a chunk of them.
        line = _products(p, 1, chunk_of(p) if fresh else p.C_per_group)
        count = self.rows * self.columns
        alone = [
            cycles(line, sizes_of(some), count, count)
            for over in PRODUCT_TILES
            if (some := tuple(tile for tile in tiles if tile.over == over))
        ]
        costs, self.work = _costs(p, m, self, np.concatenate(alone, axis=2))
        self.costs = self.costs + costs
        self.bytes = most_bytes(p, m, self)

    def best(self, more: Any = 0.0) -> Cut:
        """Return the best partition whose buffers fit; `more` is an extra cost of each tile."""
        costs = self.costs + more
        fitting = np.where(self.bytes <= MOST_BYTES, costs * self.imbalance_penalty, np.inf)
        at = np.unravel_index(np.argmin(fitting), costs.shape)
        cost = float(costs[at])
        if fitting[at] == np.inf:
            at = np.unravel_index(np.argmin(costs), costs.shape)
            cost = float(costs[at]) + IMPOSSIBLE
        numbers = (
            int(np.broadcast_to(number, costs.shape)[at])
            for number in (self.rows, self.columns, self.passes, self.shared)
        )
        rows, columns, passes, shared = numbers
        tile = self.tiles[at[2]]
        work = float(np.broadcast_to(self.work, costs.shape)[at])
        return Cut(cost, work, rows, columns, passes, bool(shared), tile, self.fresh, self.threads)


def _costs(problem: Conv2dProblem, m: int, cut: _Cuts, alone: Any) -> tuple[Any, Any]:
    """Return the estimated cycles of the busiest thread, and of all threads, of each partition.

    One matrix product takes `alone`.
    """
    p, form, passes, num_threads = problem, form_of(problem, m), cut.passes, cut.threads
    total, _, across = tiles_of(p, m)
    alpha, lanes, l2_room = form.alpha, form.lanes, 0.8 * cpu.describe().l2_bytes
    blocks = p.groups * -(-total // cut.rows) * -(-across // cut.columns)
    filter_tiles = -(-p.K_per_group // cut.filters)
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
    from_memory: Any
    produced: Any
    weights: Any
    all_transformed, produced, weights = (
        float(alpha**2 * p.itemsize) * number
        for number in (p.C_per_group * room, p.K_per_group * room, p.C_per_group * p.K_per_group)
    )
    # All threads compute a block together, or each thread its own blocks.
    share = np.where(cut.shared, 1 / num_threads, 1.0)
    fork = np.where(cut.shared, 2 * FORK_CYCLES, 0.0)
    # All blocks count as large as the largest: each reads all weights, and whole vectors.
    count = np.where(cut.shared, blocks, -(-blocks // num_threads))
    busiest = _busiest_share(p.groups, total, across, cut)
    cut.imbalance_penalty = np.where(cut.shared, 1.0, imbalance_penalty(busiest, num_threads))
    transformed, produced, weights = (n * share for n in (all_transformed, produced, weights))
    if cut.fresh:
        chunks = -(-p.C_per_group // chunk_of(p))
        # Sums are read and written for each chunk, whose weights stay in L2.
        products = products * chunks + produced / share / p.itemsize / lanes * (chunks - 1) * 2
        own = (weights * (1 + p.R * p.S / alpha**2) + produced) / passes
        products = products + _transform_cycles(p, form, cut.filters)
        # Read once per pass.
        from_memory = np.where(all_transformed + own > l2_room, all_transformed * passes, 0.0)
        from_memory = from_memory + np.where(
            own > l2_room, 2 * weights + 2 * produced * chunks, 0.0
        )
    else:
        own = transformed + produced / passes
        from_memory = np.where(own + weights / passes > l2_room, weights, 0.0)
        from_memory = from_memory + np.where(own > l2_room, 2 * transformed + 2 * produced, 0.0)
        # Input that other threads have transformed comes from their caches, once per pass.
        from_memory = from_memory + np.where(
            cut.shared, (all_transformed - transformed) * passes, 0.0
        )
    moving = from_memory / MEMORY_BYTES_PER_CYCLE / 2
    of_inputs, of_filters = (
        np.where(cut.shared, -(-size // num_threads) / size, 1.0)
        for size in (p.C_per_group, filter_tiles)
    )
    cost = count * (inputs * of_inputs + (outputs + products) * of_filters + fork + moving)
    work = blocks * (inputs + outputs + products + moving / share)
    return cost + IMPOSSIBLE * np.maximum(0.0, own * 1.2 - MOST_BYTES), work


def _busiest_share(groups: int, total: int, across: int, cut: _Cuts) -> Any:
    """Return the busiest thread's share of all tiles if each thread computes its own blocks."""
    rows, columns = -(-total // cut.rows).reshape(-1), -(-across // cut.columns).reshape(-1)
    axes = AxisCut(total, 1, rows), AxisCut(across, 1, columns), AxisCut(1, 1, 1)
    workers = np.minimum(cut.threads, groups * rows * columns)
    return busiest_share(groups, axes, workers).reshape(-1, 1, 1)


def _transform_cycles(problem: Conv2dProblem, form: Form, tile_filters: Any) -> Any:
    """Return the estimated cycles of a core to pack and transform the weights of a group."""
    filters = -(-problem.K_per_group // tile_filters) * tile_filters
    vectors = problem.C_per_group * filters / form.lanes
    return vectors * (60 + 5.0 * form.r**2 + 9.0 * form.alpha**2)


def _preparing(problem: Conv2dProblem, m: int, cut: _Cuts, num_threads: int) -> Any:
    """Return the estimated cycles to transform all weights in advance, for one use.

    Weights are limited to one more copy of their size, plus the limit of all threads.
    """
    p, form = problem, form_of(problem, m)
    size = p.groups * form.alpha**2 * p.itemsize * -(-p.K_per_group // cut.filters)
    size = size * odd_lines(p.C_per_group * cut.filters, p.itemsize)
    alone = p.groups * _transform_cycles(p, form, cut.filters) / num_threads
    beyond = np.maximum(0, size - p.weight_bytes - num_threads * MOST_BYTES)
    return alone + size * PREPARED_CYCLES_PER_BYTE + IMPOSSIBLE * beyond


def most_bytes(problem: Conv2dProblem, m: int, cut: Cut | _Cuts) -> Any:
    """Return an upper bound of a thread's buffers; `blocks_of` computes the exact size."""
    p, form, columns = problem, form_of(problem, m), cut.columns
    filters: Any
    tile_columns: Any
    if isinstance(cut, Cut):
        filters, tile_columns = cut.shape.filters, cut.shape.columns
    else:
        filters, tile_columns = cut.filters, cut.tile_columns
    alpha, lanes = form.alpha, form.lanes
    filter_tiles = -(-p.K_per_group // filters)
    workers = np.where(cut.shared, np.minimum(cut.threads, filter_tiles), 1)
    # Whole filter tiles, even for few filters.
    pass_filters = -(-filter_tiles // (workers * cut.passes)) * filters
    room = np.maximum(
        rounded_up(cut.rows * columns, lanes) + lanes, rounded_up(tile_columns, lanes)
    )
    planes = alpha**2 * room * (p.C_per_group / workers + pass_filters)
    rows = np.minimum(cut.rows, -(-p.OH // m))
    scattered = m * alpha * ((rows + (alpha - 1) // m) * columns + lanes)
    gathered = m * m * (rounded_up(rows * columns, lanes) + lanes)
    # Rounding to odd numbers of cache lines, and reads beyond the ends.
    around = 3 * 64 * alpha**2 + 6 * (tile_columns + lanes + 16) * p.itemsize
    chunk, fresh = filter_elements(p, form, filters, pass_filters if cut.fresh else 0)
    return p.itemsize * (planes + scattered + gathered + (chunk + fresh)) + around


def filter_elements(
    problem: Conv2dProblem, form: Form, tile_filters: Any, filters: Any
) -> tuple[Any, Any]:
    """Return the elements of a packed chunk of a filter tile, and of its transform if fresh."""
    step = odd_lines(chunk_of(problem) * tile_filters, problem.itemsize)
    return form.r**2 * step, filters // tile_filters * form.alpha**2 * step


def rounded_up(number: Any, unit: int) -> Any:
    """Return the least multiple of `unit` that is not below `number`."""
    return -(-number // unit) * unit


def odd_lines(elements: Any, itemsize: int) -> Any:
    """Round up to an odd number of cache lines, to avoid cache set conflicts."""
    line = 64 // itemsize
    lines = -(-elements // line)
    return (lines + 1 - lines % 2) * line
