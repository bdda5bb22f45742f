"""What the weight gradients share in cutting their work: bands, chunks, tiles and their sums.

Every cut depends on the problem alone, and so does the order of every sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array
from fastconv.convolution.blocking.partition import PARTS, split_below
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import record_of
from fastconv.kernels.weight_grad_loops import SUMS, GradientShape, collect_address, run_loops
from fastconv.runtime.threads import useful_threads

# An image of a band is packed in so many chunks at least for each tile: enough for all threads.
CHUNKS = 4


def cut_bands(N: int, height: int, images: int, rows: int) -> NDArray[np.int64]:
    """Return bands of at most so many images and rows.

    Each is its first image, how many images, its first row, and how many rows: (bands, 4).
    """
    return np.array(
        [
            (n0, n1 - n0, i0, i1 - i0)
            for n0, n1 in split_below(max(1, N), images)
            for i0, i1 in split_below(height, rows)
        ]
    )


def largest_band(images: int, rows: int, too_large: Callable[[int, int], bool]) -> tuple[int, int]:
    """Return how many images and rows are not too large: fewer images, then fewer rows."""
    while images > 1 and too_large(images, rows):
        images -= 1
    while rows > 1 and too_large(images, rows):
        rows -= 1
    return images, rows


def chunks_of(pieces: int, groups: int, most: int) -> int:
    """Return into how many chunks, at most `most`, pieces are divided; each has its own sums."""
    return max(1, min(pieces, PARTS, most, -(-PARTS // groups)))


def tile_starts(total: int, size: int) -> list[int]:
    """Return where tiles of `size` begin; the last one moves back until it fits."""
    return [min(start, total - size) for start in range(0, total, size)]


# Sums of tiles of filters -------------------------------------------------------------------


def sums_record(
    problem: Conv2dProblem, shape: GradientShape, tile_sums: int, tap_offsets: Array
) -> NDArray[Any]:
    """Return the numbers `SUMS` of `fastconv.kernels.weight_grad_loops`."""
    p = problem
    # Enough items for all threads, each of whole vectors of taps.
    items = min(CHUNKS, -(-p.taps // shape.lanes))
    step = -(-p.taps // (items * shape.lanes)) * shape.lanes
    sizes = {"tap_step": step, "tap_chunks": -(-p.taps // step), "tile_sums": tile_sums}
    tiles, offsets = tiles_of_filters(p, shape), {"tap_offsets": tap_offsets}
    return record_of(SUMS, p, lanes=shape.lanes, **sizes, **tiles, **offsets)


def tiles_of_filters(problem: Conv2dProblem, shape: GradientShape) -> dict[str, int]:
    """Return the size of a tile of filters, and how many a group has."""
    count = -(-problem.K_per_group // shape.filters)
    return {"tile_filters": shape.filters, "filter_tiles": count}


def whole_vectors(offsets: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    """Return offsets that go on to a multiple of `lanes` of them."""
    return np.pad(offsets, (0, -len(offsets) % lanes), mode="edge")


class BandLoops:
    """Loops over bands of a problem with the arrays of one call; `code` has the numbers `CODE`."""

    def __init__(
        self, cut: Any, code: NDArray[Any], most: int, factors: tuple[Array, Array], sums: Array
    ) -> None:
        self._cut, self._code, self._most, self._sums = cut, code, most, sums
        self._factors = factors[0].reshape(-1), factors[1].reshape(-1)
        self._layer = cut.record.view(np.int64)  # one type for the kernel, whatever the fields

    def run(self, loops: int, items: int, memory: Array, band: Array) -> None:
        """Do so many items of a band."""
        arrays = *self._factors, memory, self._sums, band
        run_loops.on(self._most, items, loops, *arrays, self._code, self._layer)

    def finish(self, loops: int, items: int, out: Array, layer: Array | None = None) -> None:
        """Do what fills `out` with the sums, by the numbers of the cut or those of `layer`."""
        layer = self._layer if layer is None else layer.view(np.int64)
        arrays = *self._factors, self._sums, out.reshape(-1), layer
        # A few cycles for each sum: often too little for a second thread.
        most = min(self._most, useful_threads(3 * self._sums.size / CYCLES_PER_SECOND))
        run_loops.on(most, items, loops, *arrays, self._code, layer)

    def collect(self, problem: Conv2dProblem, out: Array) -> None:
        """Fill `out` with the sums of tiles of filters."""
        p, cut = problem, self._cut
        vectors = p.groups * -(-p.K_per_group // cut.shape.lanes)
        items = vectors * int(cut.sums_record[0].tap_chunks)
        self.finish(collect_address(), items, out, cut.sums_record)
