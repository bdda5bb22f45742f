"""FFTs of planes: from images to spectra, and from spectra to images.

A transform is in place and leaves its results in digit-reversed order, `order`. They are not
reordered: later steps look up the index of a frequency.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from fastconv.codegen.fft_butterflies import READ_FIELDS, WRITTEN_FIELDS, Planes
from fastconv.codegen.integers import Integer, Record, call_at, counted, integer_at
from fastconv.codegen.machine_function import machine_function
from fastconv.core.records import record_type


@lru_cache(maxsize=32)
def order(n: int) -> NDArray[np.int64]:
    """Return the index of each frequency after a transform of `n` points, a power of two.

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
def twiddle_factors(most: int, dtype: str) -> NDArray[Any]:
    """Return the twiddle factors of all transforms of up to `most` points, shortest first."""
    angles = [
        -2 * np.pi * number * j / length
        for length in (2**k for k in range(2, most.bit_length()))
        for j in range(length // 4)
        for number in (1, 2, 3)
    ]
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(dtype)


@machine_function(
    lambda bits, lanes: f"fourier-f{bits}x{lanes}",
    *("points", "offsets", "lines", "n", "distance", "factors"),
)
def transform_lines_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit one-dimensional transforms, of rows or columns.

    The arguments: addresses of the points and of the offset of each line; the number of lines; the
    points of a line (a power of two) and their stride in bytes; the address of `twiddle_factors`.
    """
    write = Planes(builder, bits, lanes)
    exponent = Integer(builder, builder.cttz(v.n.value, ir.Constant(ir.IntType(1), 0)))
    with counted(builder, 0, v.lines) as number:
        line = v.points + integer_at(builder, v.offsets, number)
        with counted(builder, 0, exponent // 2) as stage:
            _write_stage(write, line, v, stage)
        odd = exponent.compare("!=", exponent // 2 * 2)
        with builder.if_then(odd), counted(builder, 0, v.n, 2) as block:
            write.butterfly(2, line + block * v.distance, v.distance, v.factors)


def _write_stage(write: Planes, line: Integer, v: Any, stage: Integer) -> None:
    """Emit the butterflies of a stage, in blocks of ``n >> 2 * stage`` points."""
    builder = write.builder
    length = Integer(builder, builder.lshr(v.n.value, (stage * 2).value))
    part = length // 4
    table = v.factors + (part - 1) * (6 * write.size)
    with counted(builder, 0, v.n, length) as block, counted(builder, 0, part) as j:
        point = line + (block + j) * v.distance
        write.butterfly(4, point, part * v.distance, table + j * (6 * write.size))


#: The fields that both directions share: the address of the code for lines; for rows (across) and
#: columns (down), the addresses of their offsets, their number, points and stride in bytes; the
#: addresses of the twiddle factors and of the indices of each frequency and its negative; the
#: number of frequencies.
_LINES = (
    *("lines", "across", "lines_across", "nw", "point_bytes"),
    *("down", "lines_down", "nh", "pitch_bytes", "factors", "pairs", "frequencies"),
)
#: The record of `spectra`: the lines; the number of elements to clear; the address of the planes'
#: descriptions, the row stride in elements, and the largest numbers of rows and columns to read;
#: the row stride of the points in bytes, and their column stride in points; the address of the
#: spectra, and the number of planes.
SPECTRA = record_type(
    *_LINES,
    *("elements", "tables", "row", "rows", "columns", "row_bytes", "step", "target", "planes"),
)
#: The record of `images`: the lines; the address of the spectra, and the number of planes; the
#: address of the planes' descriptions, the row stride in elements, and the numbers of rows and
#: columns; addresses of the offset of each column of the result, of the scale and of the bias.
IMAGES = record_type(
    *_LINES,
    *("source", "planes", "tables", "row", "rows", "columns", "offsets", "scale", "bias"),
)
#: The arguments of both: a range of pairs of blocks of planes, the addresses of the workspace and
#: of the record.
ARGUMENTS = ("start", "stop", "points", "record")


@machine_function(lambda bits, lanes: f"spectra-f{bits}x{lanes}", *ARGUMENTS)
def spectra_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit the transform of planes, with a record of `SPECTRA`.

    Its result is the complex ``target[frequency, plane]``, scaled by two.
    """
    write, g = Planes(builder, bits, lanes), Record(builder, v.record, SPECTRA)
    with counted(builder, v.start, v.stop) as block:
        write.clear(v.points, g.elements)
        with counted(builder, 0, 2) as part:
            tables = g.tables + (block * 2 + part) * (lanes * READ_FIELDS * 8)
            with counted(builder, 0, g.rows) as i, counted(builder, 0, g.columns, lanes) as j:
                point = v.points + i * g.row_bytes + j * g.step * write.point_bytes
                point += part * lanes * write.size
                write.read(point, g.step, tables, g.row, i, j)
        _write_lines(builder, v, g, ("across", "down"))
        first = block * (2 * lanes)
        with _frequencies(builder, v, g) as (f, here, opposite):
            target = g.target + (f * g.planes + first) * (2 * write.size)
            write.separate(here, opposite, target, g.planes - first)


@machine_function(lambda bits, lanes: f"images-f{bits}x{lanes}", *ARGUMENTS)
def images_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit the inverse transform, with a record of `IMAGES`.

    Its source is the complex ``[frequency, plane]``. `Planes.combine` exchanges real and imaginary
    parts.
    """
    write, g = Planes(builder, bits, lanes), Record(builder, v.record, IMAGES)
    with counted(builder, v.start, v.stop) as block:
        first = block * (2 * lanes)
        with _frequencies(builder, v, g) as (f, here, opposite):
            source = g.source + (f * g.planes + first) * (2 * write.size)
            write.combine(here, opposite, source, g.planes - first)
        _write_lines(builder, v, g, ("down", "across"))
        with counted(builder, 0, 2) as part:
            plane = first + part * lanes
            tables, left = g.tables + plane * (WRITTEN_FIELDS * 8), g.planes - plane
            offset, bias = (1 - part) * lanes * write.size, g.bias + plane * write.size
            with counted(builder, 0, g.rows) as i, counted(builder, 0, g.columns, lanes) as j:
                line = v.points + integer_at(builder, g.across, i) + offset
                offsets = g.offsets + j * 8
                write.write(line, offsets, tables, g.row, (i, j), left, g.scale, bias)


def _write_lines(builder: Any, v: Any, g: Record, directions: tuple[str, str]) -> None:
    """Emit the transforms of rows (across) and columns (down), in the given order."""
    for direction in directions:
        count, n, distance = (
            (g.lines_across, g.nw, g.point_bytes)
            if direction == "across"
            else (g.lines_down, g.nh, g.pitch_bytes)
        )
        offsets = getattr(g, direction)
        call_at(builder, g.lines, v.points, offsets, count, n, distance, g.factors)


@contextmanager
def _frequencies(builder: Any, v: Any, g: Record) -> Iterator[tuple[Integer, Integer, Integer]]:
    """Emit a loop over frequencies, with the addresses of the points of each and its negative."""
    with counted(builder, 0, g.frequencies) as f:
        here, opposite = (v.points + integer_at(builder, g.pairs, f * 2 + n) for n in (0, 1))
        yield f, here, opposite


@cache
def as_function(address: int) -> Callable[..., None]:
    """Return the function of `ARGUMENTS` at an address."""
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * len(ARGUMENTS))(address)
