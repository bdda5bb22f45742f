"""A partition of Winograd tiles into blocks as the kernel reads it: sizes, offsets and buffers."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.blocking.partition import split_below
from fastconv.convolution.blocking.winograd_search import (
    Cut,
    chunk_of,
    filter_elements,
    form_of,
    odd_lines,
    rounded_up,
    tiles_of,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import freeze, record_of
from fastconv.kernels.winograd_microkernels import LAYOUT


class Blocks(NamedTuple):
    """A partition as the kernel reads it."""

    #: The parameters `fastconv.kernels.winograd_microkernels.LAYOUT`.
    record: NDArray[Any]
    #: The offset of each channel in the transformed input.
    offsets: NDArray[np.int64]
    #: Bounds of the blocks: rows of tiles, then columns of tiles.
    starts: NDArray[np.int64]
    #: The numbers of blocks and of threads with work.
    blocks: int
    workers: int
    #: Memory that all threads share, and of each thread.
    shared_bytes: int
    worker_bytes: int


@lru_cache(maxsize=128)
def blocks_of(problem: Conv2dProblem, m: int, cut: Cut, pooled: bool = False) -> Blocks:
    """Return a partition as the kernel reads it; `pooled` is for fused max pooling."""
    p, shape, fresh = problem, cut.shape, cut.fresh
    total, down, across = tiles_of(p, m)
    row_starts, column_starts = _starts(total, cut.rows), _starts(across, cut.columns)
    filter_tiles = -(-p.K_per_group // shape.filters)
    row_blocks, column_blocks = len(row_starts) - 1, len(column_starts) - 1
    blocks = p.groups * row_blocks * column_blocks
    workers = min(cut.threads, filter_tiles if cut.shared else blocks)
    pass_tiles = -(-filter_tiles // (workers * cut.passes if cut.shared else cut.passes))
    numbers = _buffers(p, m, cut, row_starts, column_starts, pass_tiles)
    offsets = np.arange(p.C_per_group) * numbers["pitch"]
    starts = np.array([*row_starts, *column_starts])
    freeze(offsets, starts)
    chunk, shrink = chunk_of(p), 2 if pooled else 1
    record = record_of(
        LAYOUT,
        *(p, p.record[0]),
        **numbers,
        **{"run": chunk, "x_row": 0, "x_step": 1, "out_row": 0, "out_plane": numbers["pitch"]},
        **{"OH": p.OH // shrink, "OW": p.OW // shrink, "m": m, "out_m": m // shrink},
        products=form_of(p, m).alpha ** 2,
        chunk=chunk,
        chunks=-(-p.C_per_group // chunk),
        tile_rows=down,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        blocks=blocks,
        workers=workers,
        shared=cut.shared,
        fresh=fresh,
        tile_filters=shape.filters,
        tile_columns=shape.columns,
        filter_tiles=filter_tiles,
        pass_tiles=pass_tiles,
        weight_step=odd_lines((chunk if fresh else p.C_per_group) * shape.filters, p.itemsize),
        offsets=offsets,
        starts=starts,
    )
    memory = numbers["shared_bytes"], numbers["worker_bytes"]
    return Blocks(record, offsets, starts, blocks, workers, *memory)


def _buffers(
    problem: Conv2dProblem,
    m: int,
    cut: Cut,
    row_starts: list[int],
    column_starts: list[int],
    pass_tiles: int,
) -> dict[str, int]:
    """Return the strides of a block's buffers, and their offsets in a worker's memory."""
    p, form, shape, down = problem, form_of(problem, m), cut.shape, tiles_of(problem, m)[1]
    lanes, alpha = form.lanes, form.alpha
    wide = max(stop - start for start, stop in pairwise(column_starts))
    high = min(down, max(stop - start for start, stop in pairwise(row_starts)))
    pitch = max(_pitch(*some, down, wide, lanes) for some in pairwise(row_starts))
    tiles = max(b - a for a, b in pairwise(row_starts)) * wide
    # Tiles of sums that are added to must not overlap, nor reach into the next row.
    room = rounded_up(tiles, shape.columns) if cut.fresh else shape.columns
    pitch = max(pitch, rounded_up(room, lanes))
    in_stride = odd_lines(p.C_per_group * pitch, p.itemsize)
    product_stride = odd_lines(pass_tiles * shape.filters * pitch, p.itemsize)
    in_plane = (high + (alpha - 1) // m) * wide + lanes
    gather_plane = rounded_up(high * wide, lanes) + lanes
    fresh = pass_tiles * shape.filters if cut.fresh else 0
    filters = filter_elements(p, form, shape.filters, fresh)
    sizes = (
        *(m * alpha * in_plane, m * m * gather_plane, alpha**2 * product_stride),
        *(*filters, alpha**2 * in_stride),
    )
    # Microkernels and transforms read beyond the last element.
    ends = np.cumsum([rounded_up(n + shape.columns + lanes, 16) for n in sizes]) * p.itemsize
    begins = "gather_begin", "products_begin", "packed_begin", "weights_begin", "inputs_begin"
    return {
        **{"pitch": pitch, "scatter_plane": in_plane, "gather_plane": gather_plane},
        **{"in_stride": in_stride, "product_stride": product_stride},
        **dict(zip(begins, ends[:5].tolist(), strict=True)),
        "shared_bytes": int(ends[5] - ends[4]) if cut.shared else 0,
        "worker_bytes": int(ends[4 if cut.shared else 5]),
    }


def _starts(total: int, size: int) -> list[int]:
    """Return the bounds of nearly equal blocks of at most `size`."""
    return [start for start, _ in split_below(total, size)] + [total]


def _pitch(first: int, last: int, down: int, columns: int, lanes: int) -> int:
    """Return the elements of a channel's tiles in a block, stored in whole vectors."""
    pitch, row = 0, first
    while row < last:
        rows = min(last - row, down - row % down)
        pitch = max(pitch, (row - first) * columns + rounded_up(rows * columns, lanes))
        row += rows
    return int(rounded_up(pitch, lanes))
