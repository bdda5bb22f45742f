"""Fourier transforms of planes: from images to spectra, and from spectra to images.

A transform is done in place and leaves its results in an order of its own, `order`. Nothing is put
in order: what follows looks up where a frequency lies.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.codegen.fft_butterflies import (
    READ_FIELDS,
    WRITTEN_FIELDS,
    butterfly,
    put_together,
    read_planes,
    take_apart,
    write_planes,
)
from fastconv.codegen.row_copies import clear_row
from fastconv.jit.compiler import address_of
from fastconv.jit.pointers import call, integer_at


@lru_cache(maxsize=32)
def order(n: int) -> NDArray[np.int64]:
    """Return where a transform of `n` points, a power of two, leaves each frequency.

    >>> order(8).tolist()
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    if n == 1:
        return np.zeros(1, np.int64)
    radix = 2 if n == 2 else 4
    part = n // radix
    block, rest = np.divmod(np.arange(n), part)
    frequencies = block + radix * np.argsort(order(part))[rest]
    return np.argsort(frequencies)


@lru_cache(maxsize=8)
def factors(most: int, dtype: str) -> NDArray[Any]:
    """Return what transforms of up to `most` points turn theirs by, shortest transforms first."""
    angles = [
        -2 * np.pi * number * j / length
        for length in (2**k for k in range(2, most.bit_length()))
        for j in range(length // 4)
        for number in (1, 2, 3)
    ]
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(dtype)


@cache
def lines_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that transforms lines of points."""
    size = bits // 8

    def lines(points, offsets, count, n, distance, factors):  # type: ignore[no-untyped-def]
        for number in range(count):
            line = points + integer_at(offsets, number)
            length = n
            while length > 2:
                part = length // 4
                table = factors + 6 * (part - 1) * size
                for block in range(0, n, length):
                    for j in range(part):
                        place = line + (block + j) * distance
                        butterfly(4, place, part * distance, table + 6 * j * size, bits, lanes)
                length = part
            if length == 2:
                for block in range(0, n, 2):
                    butterfly(2, line + block * distance, distance, factors, bits, lanes)

    return address_of(lines, f"fourier-f{bits}x{lanes}", 6)


#: What `spectra` is called with: a range of pairs of blocks of planes, the address of what
#: transforms lines (`lines_address`), where to work and how many elements to clear there; of the
#: planes, their integers, the elements of a row, and how many rows and columns to read at most;
#: the bytes of points between two rows, and the points between two columns; where lines lie in
#: both directions, how many, their points and bytes between them; the factors; for each frequency
#: where it and its opposite lie, and how many there are; where the spectra go, and how many planes
#: there are.
SPECTRA = (
    *("start", "stop", "lines", "points", "elements", "tables", "row", "rows", "columns"),
    *("row_bytes", "step", "across", "lines_across", "nw", "point_bytes"),
    *("down", "lines_down", "nh", "pitch_bytes", "factors", "pairs", "frequencies"),
    *("target", "planes"),
)
#: And `images`: spectra in place of the target, where the points of each row and
#: column of the result lie, what to multiply it by, and what to add.
IMAGES = (
    *("start", "stop", "lines", "points", "source", "planes", "pairs", "frequencies"),
    *("down", "lines_down", "nh", "pitch_bytes", "across", "lines_across", "nw", "point_bytes"),
    *("factors", "tables", "row", "rows", "columns", "places", "scale", "bias"),
)


@cache
def spectra(bits: int, lanes: int) -> Callable[..., None]:
    """Return the function of the integers `SPECTRA` that transforms planes.

    Its result is the complex ``target[frequency, plane]``, twice as large as the transform.
    """
    size = bits // 8

    def transform(  # type: ignore[no-untyped-def]
        start, stop, lines, points, elements, tables, row, rows, columns,
        row_bytes, step, across, lines_across, nw, point_bytes,
        down, lines_down, nh, pitch_bytes, factors, pairs, frequencies,
        target, planes,
    ):  # fmt: skip
        for block in range(start, stop):
            clear_row(points, elements, bits, lanes)
            for part in range(2):
                table = tables + (2 * block + part) * lanes * READ_FIELDS * 8
                for i in range(rows):
                    for j in range(0, columns, lanes):
                        place = points + i * row_bytes + j * step * point_bytes
                        read_planes(place, part, step, table, row, i, j, bits, lanes)
            call(lines, (points, across, lines_across, nw, point_bytes, factors))
            call(lines, (points, down, lines_down, nh, pitch_bytes, factors))
            first = block * 2 * lanes
            for f in range(frequencies):
                here = points + integer_at(pairs, 2 * f)
                opposite = points + integer_at(pairs, 2 * f + 1)
                place = target + (f * planes + first) * 2 * size
                take_apart(here, opposite, place, planes - first, bits, lanes)

    return _callable(transform, f"spectra-f{bits}x{lanes}", len(SPECTRA))


@cache
def images(bits: int, lanes: int) -> Callable[..., None]:
    """Return the function of the integers `IMAGES` that transforms spectra back.

    Its source is the complex ``[frequency, plane]``.
    """
    size = bits // 8

    def transform(  # type: ignore[no-untyped-def]
        start, stop, lines, points, source, planes, pairs, frequencies,
        down, lines_down, nh, pitch_bytes, across, lines_across, nw, point_bytes,
        factors, tables, row, rows, columns, places, scale, bias,
    ):  # fmt: skip
        for block in range(start, stop):
            first = block * 2 * lanes
            for f in range(frequencies):
                here = points + integer_at(pairs, 2 * f)
                opposite = points + integer_at(pairs, 2 * f + 1)
                place = source + (f * planes + first) * 2 * size
                put_together(here, opposite, place, planes - first, bits, lanes)
            call(lines, (points, down, lines_down, nh, pitch_bytes, factors))
            call(lines, (points, across, lines_across, nw, point_bytes, factors))
            for part in range(2):
                plane = first + part * lanes
                table, left = tables + plane * WRITTEN_FIELDS * 8, planes - plane
                offset = bias + plane * size
                for i in range(rows):
                    line = points + integer_at(across, i)
                    for j in range(0, columns, lanes):
                        write_planes(
                            line, 1 - part, places + 8 * j, table, row, i, j, left,
                            scale, offset, bits, lanes,
                        )  # fmt: skip

    return _callable(transform, f"images-f{bits}x{lanes}", len(IMAGES))


def _callable(function: Callable[..., None], name: str, arguments: int) -> Callable[..., None]:
    address = address_of(function, name, arguments)
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * arguments)(address)
