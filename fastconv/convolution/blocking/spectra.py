"""FFTs of planes and their inverses: the tables that the kernels of `fft_loops` read.

A spectrum holds half of the frequencies, ``n_h * (n_w // 2 + 1)`` complex numbers: the others are
their conjugates. Spectra of many planes are stored as (frequencies, planes), so that the products
of one frequency are one matrix product.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.codegen.fft_butterflies import READ_FIELDS, WRITTEN_FIELDS
from fastconv.convolution.algorithm import Array
from fastconv.convolution.blocking.partition import PARTS, split
from fastconv.core.records import record_of
from fastconv.kernels import fft_loops
from fastconv.runtime import cpu, threads
from fastconv.runtime.workspace import scratch

#: The most points along an axis.
MOST_POINTS = 128

Integers = NDArray[np.int64]


class Reading(NamedTuple):
    """The elements that tile t reads along an axis: `length` from ``first + t * advance`` on.

    They go to points 0, `spread`, 2 * `spread`, ... of the transform.
    """

    first: int
    advance: int
    length: int
    spread: int


class Writing(NamedTuple):
    """The elements that tile t writes: `length` from ``t * length`` on, fewer at the end.

    They come from points `start`, ``start + spread``, ... of the transform.
    """

    length: int
    start: int
    spread: int


class Transform:
    """Transforms of ``n_h`` by ``n_w`` points, both powers of two."""

    def __init__(self, dtype: str, n_h: int, n_w: int) -> None:
        self.dtype = dtype
        self.lanes = lanes = cpu.describe().instructions.lanes(dtype)
        self.bits = 8 * np.dtype(dtype).itemsize
        self._size = n_h, n_w
        self._point = 2 * lanes * self.bits // 8
        # With a power of two as stride, rows would map to the same cache set.
        self._row = (n_w + (n_w > 1)) * self._point
        self._offsets = fft_loops.order(n_h) * self._row, fft_loops.order(n_w) * self._point
        v, u = np.indices((n_h, n_w // 2 + 1)).reshape(2, -1)
        pairs = np.stack([(v, u), (-v % n_h, -u % n_w)])  # each frequency and its negative
        self.frequencies = len(v)
        ordered = self._offsets[0][pairs[:, 0]] + self._offsets[1][pairs[:, 1]]
        natural = pairs[:, 0] * self._row + pairs[:, 1] * self._point
        # The spectrum at the negative frequency is the conjugate of that at the positive one.
        self._ordered = {False: _table(ordered.T), True: _table(ordered[::-1].T)}
        self._natural = _table(natural.T)
        self._down = np.arange(n_w) * self._point
        self._factors = fft_loops.twiddle_factors(MOST_POINTS, dtype)
        # Both spectra are scaled by two, and the transforms are not normalized.
        self._scale = np.array([0.25 / (n_h * n_w)], dtype)

    def points(self, spread: int = 0) -> int:
        """Return the number of elements of the points of a pair of blocks of planes.

        Input rows are stored in whole vectors with stride `spread`, beyond their end.
        """
        size = self._size[0] * self._row + spread * self.lanes * self._point
        return size * 8 // self.bits

    def spectra(
        self,
        array: Array,
        planes: Integers,
        tiles: tuple[Integers, Integers],
        readings: tuple[Reading, Reading],
        out: Array,
        conjugate: bool = False,
    ) -> None:
        """Fill `out`, (frequencies, planes), with spectra of tiles of planes, scaled by two.

        `planes` are indices of planes in `array`, (..., height, width), in the order of `out`.
        `tiles` are the row and column of tiles, broadcast against `planes`; `readings` the rows and
        columns that a tile reads: those outside `array` are zero.
        """
        height, width = array.shape[-2:]
        down, across = readings
        table = np.empty((*planes.shape, READ_FIELDS), np.int64)
        h, w = (
            r.first + _per_tile(t, planes) * r.advance for r, t in zip(readings, tiles, strict=True)
        )
        table[..., 0] = _addresses(array, planes, h, w)
        for field, start, count, size in (
            (1, h, down.length, height),
            (3, w, across.length, width),
        ):
            table[..., field] = first = np.maximum(0, -start)
            table[..., field + 1] = np.maximum(first, np.minimum(count, size - start))
        table = self._padded(table.reshape(-1, READ_FIELDS))
        elements = self.points(across.spread)
        rows = np.arange(down.length) * (down.spread * self._row)
        record = record_of(
            fft_loops.SPECTRA,
            **self._lines(rows),
            **{"pairs": self._ordered[conjugate], "tables": table, "target": out},
            **{"elements": elements, "row": width, "planes": planes.size},
            **{"rows": down.length, "columns": across.length},
            **{"row_bytes": down.spread * self._row, "step": across.spread},
        )
        self._run(fft_loops.spectra_address, elements, len(table), record)

    def images(
        self,
        spectra: Array,
        array: Array,
        planes: Integers,
        tiles: tuple[Integers, Integers],
        writings: tuple[Writing, Writing],
        bias: Array,
    ) -> None:
        """Write the inverse transforms of products of two spectra, plus `bias`, into `array`.

        There is one bias per plane; otherwise as in `spectra`.
        """
        height, width = array.shape[-2:]
        down, across = writings
        table = np.empty((*planes.shape, WRITTEN_FIELDS), np.int64)
        h, w = (_per_tile(t, planes) * o.length for o, t in zip(writings, tiles, strict=True))
        table[..., 0] = _addresses(array, planes, h, w)
        table[..., 1] = np.minimum(down.length, height - h)
        table[..., 2] = np.minimum(across.length, width - w)
        table = self._padded(table.reshape(-1, WRITTEN_FIELDS))
        rows, columns = (
            offsets[some.start : some.start + (some.length - 1) * some.spread + 1 : some.spread]
            for offsets, some in zip(self._offsets, writings, strict=True)
        )
        rows = np.ascontiguousarray(rows)
        columns = np.concatenate([columns, np.zeros(self.lanes, np.int64)])
        record = record_of(
            fft_loops.IMAGES,
            **self._lines(rows),
            **{"pairs": self._natural, "tables": table, "source": spectra},
            **{"row": width, "planes": planes.size},
            **{"rows": down.length, "columns": across.length, "offsets": columns},
            **{"scale": self._scale, "bias": bias},
        )
        self._run(fft_loops.images_address, self.points(), len(table), record)

    def _lines(self, rows: Integers) -> dict[str, Any]:
        """Return the fields for one-dimensional transforms; `rows` are the offsets of the rows."""
        n_h, n_w = self._size
        return {
            **{
                "lines": fft_loops.transform_lines_address(self.bits, self.lanes),
                "factors": self._factors,
            },
            **{"across": rows, "lines_across": len(rows), "nw": n_w, "point_bytes": self._point},
            **{"down": self._down, "lines_down": n_w, "nh": n_h, "pitch_bytes": self._row},
            "frequencies": self.frequencies,
        }

    def _run(self, address: Any, elements: int, planes: int, record: NDArray[Any]) -> None:
        """Transform `planes` planes, pairs of blocks of planes in parallel."""
        function = fft_loops.as_function(address(self.bits, self.lanes))

        def transform(blocks: tuple[int, int]) -> None:
            with scratch("points", (elements,), self.dtype) as points:
                function(*blocks, points.ctypes.data, record.ctypes.data)

        threads.run_tasks(transform, split(planes // (2 * self.lanes), PARTS))

    def _padded(self, table: Integers) -> Integers:
        """Return the table padded with empty planes to whole pairs of blocks."""
        both = 2 * self.lanes
        padded = np.zeros((-(-len(table) // both) * both, table.shape[1]), np.int64)
        padded[: len(table)] = table
        return padded


def _addresses(array: Array, planes: Integers, h: Integers, w: Integers) -> Integers:
    height, width = array.shape[-2:]
    addresses: Integers = array.ctypes.data + ((planes * height + h) * width + w) * array.itemsize
    return addresses


def _table(offsets: Any) -> Integers:
    return np.ascontiguousarray(offsets, np.int64)


@lru_cache(maxsize=32)
def transform_of(dtype: str, n_h: int, n_w: int) -> Transform:
    """Return the (cached) transform of a size."""
    return Transform(dtype, n_h, n_w)


def _per_tile(tiles: Integers, planes: Integers) -> Integers:
    """Return the tiles in a shape that broadcasts against `planes`, whose first axis they are."""
    return tiles.reshape(-1, *(1,) * (planes.ndim - 1))
