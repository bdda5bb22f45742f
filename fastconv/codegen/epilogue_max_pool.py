"""Fused 2 x 2 max pooling of sums in registers, bitwise identical to `max_pool2d`.

Each sum is activated first, and a window's elements are compared row by row. So equal zeros and
NaN are resolved as if the output were stored and then pooled.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer
from fastconv.codegen.pool_tile import whole_or_masked
from fastconv.codegen.vector import Vectors, index


def largest(vector: Vectors, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the maxima over windows with rows (a, b) and (c, d)."""
    return _larger(vector, _larger(vector, a, b), _larger(vector, c, d))


def store_maxima(
    vector: Vectors, sums: dict[tuple[int, int], Any], out: Any, out_row: Any, columns: Any
) -> None:
    """Store the maxima over 2 x 2 windows of `sums`, which are given by row and vector.

    The number of rows is even; the number of vectors is even or one. `out` points to the first
    maximum, `out_row` is its row stride in elements, and `columns` counts the columns that remain
    before pooling.
    """
    builder, lanes = vector.builder, vector.lanes
    rows, vectors = (1 + max(numbers) for numbers in zip(*sums, strict=True))
    columns, out_row = Integer(builder, columns), Integer(builder, out_row)
    left, maxima = Integer(builder, builder.ashr(columns.value, index(1))), vector
    found = {}
    for i in range(0, rows, 2):
        if vectors == 1:  # both rows in one vector, half of it each
            larger = _larger(vector, *vector.deinterleave([sums[i, 0], sums[i + 1, 0]]))
            maxima = Vectors(builder, vector.element, lanes // 2)
            halves = (range(lanes // 2), range(lanes // 2, lanes))
            first, second = (vector.shuffle(larger, larger, half) for half in halves)
            found[i // 2, 0] = _larger(maxima, first, second)
        for v in range(0, vectors - 1, 2):
            first, second = (
                vector.deinterleave([sums[row, v], sums[row, v + 1]]) for row in (i, i + 1)
            )
            found[i // 2, v // 2] = largest(vector, *first, *second)

    def write(masked: bool) -> None:
        for (i, v), value in found.items():
            mask = maxima.first(left - v * lanes) if masked else None
            maxima.store(value, vector.at(out, out_row * i, v * lanes), mask)

    whole_or_masked(builder, left.compare(">=", vectors * lanes // 2), write)


def _larger(vector: Vectors, old: Any, new: Any) -> Any:
    """Return the larger value: the old one if equal, the new one if that is NaN.

    The first select compiles to one instruction, the processor's maximum.
    """
    builder = vector.builder
    value = builder.select(builder.fcmp_ordered(">", new, old), new, old)
    return builder.select(builder.fcmp_unordered("uno", new, new), new, value)
