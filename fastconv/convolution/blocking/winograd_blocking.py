"""A cut of Winograd's tiles into blocks as the kernel reads it: sizes, offsets and buffers."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from fastconv.kernels.winograd_loops import LAYOUT


class Blocks(NamedTuple):
    """A cut as the kernel reads it: `record` holds the numbers `winograd_loops.FIELDS`.

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


@lru_cache(maxsize=128)
def blocks_of(problem: Conv2dProblem, m: int, cut: Cut, pooled: bool = False) -> Blocks:
    """Return a cut with all its numbers.

    If the output is `pooled`, the maxima of 2 x 2 squares are written.
    """
    p, form, shape, fresh = problem, form_of(problem, m), cut.shape, cut.fresh
    (total, down, across), lanes, alpha = tiles_of(p, m), form.lanes, form.alpha
    row_starts, column_starts = _starts(total, cut.rows), _starts(across, cut.columns)
    wide = max(stop - start for start, stop in pairwise(column_starts))
    high = min(down, max(stop - start for start, stop in pairwise(row_starts)))
    pitch = max(_pitch(*some, down, wide, lanes) for some in pairwise(row_starts))
    tiles = max(b - a for a, b in pairwise(row_starts)) * wide
    # Tiles of sums that are added to must not overlap, nor reach into the next row.
    pitch = max(
        pitch, rounded_up(rounded_up(tiles, shape.columns) if fresh else shape.columns, lanes)
    )
    filter_tiles = -(-p.K_per_group // shape.filters)
    blocks = p.groups * (len(row_starts) - 1) * (len(column_starts) - 1)
    workers = min(cut.threads, filter_tiles if cut.shared else blocks)
    pass_tiles = -(-filter_tiles // (workers * cut.passes if cut.shared else cut.passes))
    in_stride = odd_lines(p.C_per_group * pitch, p.itemsize)
    product_stride = odd_lines(pass_tiles * shape.filters * pitch, p.itemsize)
    in_plane = (high + (alpha - 1) // m) * wide + lanes
    gather_plane = rounded_up(high * wide, lanes) + lanes
    # What tiles and transforms read beyond the last element belongs to the buffer.
    filters = filter_elements(p, form, shape.filters, pass_tiles * shape.filters if fresh else 0)
    sizes = (
        *(m * alpha * in_plane, m * m * gather_plane, alpha**2 * product_stride),
        *(*filters, alpha**2 * in_stride),
    )
    ends = np.cumsum([rounded_up(n + shape.columns + lanes, 16) for n in sizes]) * p.itemsize
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
        pitch = max(pitch, (row - first) * columns + rounded_up(rows * columns, lanes))
        row += rows
    return int(rounded_up(pitch, lanes))
