"""Maxima of 2 x 2 squares of sums that are still in registers: what `max_pool2d` gives, to the bit.

So each sum is activated first, and a square's elements are taken in the order of its rows: which of
two zeros wins, or of two NaN, is what it would be in two passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue_activation import activate
from fastconv.codegen.pool_tile import both_ways
from fastconv.codegen.vector import Vectors, index
from fastconv.core.activation import CLAMP


def activated(vector: Vectors, sums: Iterable[Any], numbers: Any, form: Any) -> list[Any]:
    """Return the activation of each of some vectors; `numbers` points to its numbers.

    What is only clamped stays in its registers. All else goes by way of memory, so that the code
    for it is there once.
    """
    builder, sums = vector.builder, list(sums)
    low, high, slope = (
        vector.broadcast(builder.load(builder.gep(numbers, [index(place)]))) for place in range(3)
    )
    kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
    results = []
    with builder.if_else(builder.icmp_signed("==", form, index(CLAMP))) as (then, otherwise):
        with then:
            results.append(([vector.clamp(total, low, high) for total in sums], builder.block))
        with otherwise:
            places = [builder.gep(kept, [index(number)]) for number in range(len(sums))]
            for total, place in zip(sums, places, strict=True):
                builder.store(total, place)
            with cgutils.for_range(builder, index(len(sums))) as loop:
                place = builder.gep(kept, [loop.index])
                total = activate(vector, form, builder.load(place), low, high, slope)
                builder.store(total, place)
            results.append(([builder.load(place) for place in places], builder.block))
    merged = [builder.phi(vector.type) for _ in sums]
    for values, block in results:
        for phi, value in zip(merged, values, strict=True):
            phi.add_incoming(value, block)
    return merged


def largest(vector: Vectors, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the maxima of squares with rows (a, b) and (c, d)."""
    return _larger(vector, _larger(vector, a, b), _larger(vector, c, d))


def store_largest(
    vector: Vectors, sums: dict[tuple[int, int], Any], out: Any, out_row: Any, columns: Any
) -> None:
    """Store the maxima of the squares of rows of vectors, by row and vector.

    There is an even number of rows, and of vectors too, or one.

    `out` points to the first, `out_row` are elements from a row of them to the next, and `columns`
    are the columns left of what is pooled.
    """
    builder, lanes = vector.builder, vector.lanes
    rows, vectors = (1 + max(places) for places in zip(*sums, strict=True))
    left, maxima = builder.ashr(columns, index(1)), vector
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
            place = vector.at(out, builder.mul(out_row, index(i)), index(v * lanes))
            if masked:
                there = maxima.first(builder.sub(left, index(v * lanes)))
                maxima.store_masked(value, place, there)
            else:
                maxima.store(value, place)

    both_ways(builder, builder.icmp_signed(">=", left, index(vectors * lanes // 2)), write)


def _larger(vector: Vectors, old: Any, new: Any) -> Any:
    """Return the larger of two, the old if equal; NaN is larger than any number, the new one first.

    In this form the first choice is one instruction, the processor's maximum.
    """
    builder = vector.builder
    value = builder.select(builder.fcmp_ordered(">", new, old), new, old)
    return builder.select(builder.fcmp_unordered("uno", new, new), new, value)
