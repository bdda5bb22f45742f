"""Maxima over 2 x 2 windows of sums in registers: what `max_pool2d` gives, to the bit.

So each sum is activated first, and a window's elements are taken in the order of its rows: which of
two zeros wins, or of two NaN, is what it would be if the output were stored and pooled.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer
from fastconv.codegen.pool_tile import both_ways
from fastconv.codegen.vector import Vectors, index


def largest(vector: Vectors, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the maxima over windows with rows (a, b) and (c, d)."""
    return _larger(vector, _larger(vector, a, b), _larger(vector, c, d))


def store_maxima(
    vector: Vectors, sums: dict[tuple[int, int], Any], out: Any, out_row: Any, columns: Any
) -> None:
    """Store the maxima over windows of rows of vectors, which `sums` holds by row and vector.

    There is an even number of rows, and of vectors too, or one. `out` points to the first maximum,
    `out_row` are elements from a row of them to the next, and `columns` are the columns left of
    what is pooled.
    """
    builder, lanes = vector.builder, vector.lanes
    rows, vectors = (1 + max(numbers) for numbers in zip(*sums, strict=True))
    columns, out_row = Integer(builder, columns), Integer(builder, out_row)
    left, maxima = Integer(builder, builder.ashr(columns.value, index(1))), vector
    found = {}
    for i in range(0, rows, 2):
        if vectors == 1:  # both rows, each half a vector, together
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
            to = vector.at(out, out_row * i, v * lanes)
            if masked:
                maxima.store_masked(value, to, maxima.first(left - v * lanes))
            else:
                maxima.store(value, to)

    both_ways(builder, left.compare(">=", vectors * lanes // 2), write)


def _larger(vector: Vectors, old: Any, new: Any) -> Any:
    """Return the larger of two, the old if equal; NaN is larger than any number, the new one first.

    In this form the first choice is one instruction, the processor's maximum.
    """
    builder = vector.builder
    value = builder.select(builder.fcmp_ordered(">", new, old), new, old)
    return builder.select(builder.fcmp_unordered("uno", new, new), new, value)
