"""Partitioning that all weight gradients share: bands, chunks, tiles and their sums.

Partitions, and the order of every sum, depend on the problem alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, compiler_missing
from fastconv.convolution.blocking.partition import PARTS, split_below
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import record_of
from fastconv.jit.launch import run_code
from fastconv.kernels.weight_grad_loops import SUMS, WeightGradShape, collect_address
from fastconv.runtime.threads import useful_threads

# The least number of chunks in which an image of a band is packed, enough for all threads.
CHUNKS = 4


def cut_bands(N: int, height: int, images: int, rows: int) -> NDArray[np.int64]:
    """Return bands of at most `images` images and `rows` rows.

    Each is (first image, number of images, first row, number of rows): (bands, 4).
    """
    return np.array(
        [
            (n0, n1 - n0, i0, i1 - i0)
            for n0, n1 in split_below(max(1, N), images)
            for i0, i1 in split_below(height, rows)
        ]
    )


def largest_band(images: int, rows: int, too_large: Callable[[int, int], bool]) -> tuple[int, int]:
    """Return the largest band that is not too large, reducing images first, then rows."""
    while images > 1 and too_large(images, rows):
        images -= 1
    while rows > 1 and too_large(images, rows):
        rows -= 1
    return images, rows


def band_refusal(size: int, most: int) -> str | None:
    """Return why a smallest band of `size` bytes is refused, None if it is not."""
    if size <= most:
        return None
    sizes = f"{size / 2**20:.1f} MiB, most is {most / 2**20:.0f}"
    return f"needs {sizes} for the smallest band of the weights' gradient"


def sums_refusal(problem: Conv2dProblem, sums: int, most: int) -> str | None:
    """Return why a weight gradient with so many sums is refused, beside `most` bytes; else None."""
    size, weights = sums * problem.itemsize, problem.weight_bytes
    if size > most + 2 * weights:
        return f"needs sums of {size / weights:.0f} times the size of the weights"
    return compiler_missing()


def chunks_of(pixel_blocks: int, groups: int, most: int) -> int:
    """Return the number of chunks with separate sums, at most `most`, for blocks of pixels."""
    return max(1, min(pixel_blocks, PARTS, most, -(-PARTS // groups)))


def tile_starts(total: int, size: int) -> list[int]:
    """Return the starts of tiles of `size`; the last one is shifted back to fit."""
    return [min(start, total - size) for start in range(0, total, size)]


# Sums of tiles of filters -------------------------------------------------------------------


def sums_record(
    problem: Conv2dProblem, shape: WeightGradShape, tile_sums: int, tap_offsets: Array
) -> NDArray[Any]:
    """Return the record `SUMS` of `fastconv.kernels.weight_grad_loops`."""
    p = problem
    # Enough items for all threads, each of whole vectors of taps.
    items = min(CHUNKS, -(-p.taps // shape.lanes))
    step = -(-p.taps // (items * shape.lanes)) * shape.lanes
    sizes = {"tap_step": step, "tap_chunks": -(-p.taps // step), "tile_sums": tile_sums}
    tiles, offsets = tiles_of_filters(p, shape), {"tap_offsets": tap_offsets}
    return record_of(SUMS, p, lanes=shape.lanes, **sizes, **tiles, **offsets)


def tiles_of_filters(problem: Conv2dProblem, shape: WeightGradShape) -> dict[str, int]:
    """Return the size of a filter tile, and the number of filter tiles of a group."""
    count = -(-problem.K_per_group // shape.filters)
    return {"tile_filters": shape.filters, "filter_tiles": count}


def whole_vectors(offsets: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    """Return the offsets, padded to a multiple of `lanes`."""
    return np.pad(offsets, (0, -len(offsets) % lanes), mode="edge")


#: The arrays that the loops over a band read and write: the input, the output gradient (or the
#: other way around), the packed factors, and the sums.
BandArrays = tuple[Array, Array, Array, Array]


class BandLoops:
    """The loops over the bands of a problem, prepared once for all calls.

    Attributes
    ----------
    cut : NamedTuple
        The partition, with at least `record`, `sums` and `bands`.
    seconds : float
        The estimated time of one thread.
    """

    def __init__(self, cut: Any, code: NDArray[Any], seconds: float) -> None:
        self.cut, self.seconds, self._code = cut, seconds, code
        # One type for the kernels, whatever the fields.
        self._layer = cut.record.view(np.int64)
        # A few cycles per sum: often too little work for a second thread.
        self._adding_seconds = 3 * cut.sums / CYCLES_PER_SECOND

    def run(self, most: int, loops: int, items: int, arrays: BandArrays, band: Array) -> None:
        """Run the loops over `items` items of a band, on at most `most` threads."""
        run_code.on(most, items, loops, *arrays, band, self._code, self._layer)

    def finish(self, loops: int, items: int, arrays: BandArrays, out: Array) -> None:
        """Run the loops that fill `out` from the sums."""
        self._finish(loops, items, arrays, out, self._layer)

    def collect(self, problem: Conv2dProblem, arrays: BandArrays, out: Array) -> None:
        """Fill `out` with the sums of all filter tiles."""
        p, record = problem, self.cut.sums_record
        items = p.groups * -(-p.K_per_group // self.cut.shape.lanes) * int(record[0].tap_chunks)
        self._finish(collect_address(), items, arrays, out, record.view(np.int64))

    def _finish(self, loops: int, items: int, arrays: BandArrays, out: Array, layer: Array) -> None:
        x, grad, _, sums = arrays
        most = useful_threads(self._adding_seconds)
        run_code.on(most, items, loops, x, grad, sums, out.reshape(-1), layer, self._code, layer)
