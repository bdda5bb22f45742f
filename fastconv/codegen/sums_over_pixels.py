"""Sums over pixels in registers: each lane adds up its own pixels, and the lanes are added once.

What microkernels of weight gradients share whose vectors hold pixels. Both factors are then read
where they lie, and nothing is packed.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.vector import Vectors


class SumsOverPixels:
    """So many sums, which begin with zero."""

    def __init__(self, vector: Vectors, count: int) -> None:
        self._vector = vector
        # Registers, once the optimizer has seen that nothing else touches them.
        self._totals = [cgutils.alloca_once(vector.builder, vector.type) for _ in range(count)]
        for total in self._totals:
            vector.builder.store(vector.zero, total)

    def add_product(self, number: int, a: Any, b: Any) -> None:
        """Add ``a * b`` to one of the sums."""
        vector, total = self._vector, self._totals[number]
        product = vector.multiply_add(a, b, vector.builder.load(total))
        vector.builder.store(vector.now(product), total)

    def store(self, target: Integer, first: Integer) -> None:
        """Add each sum's lanes up, and the result to elements at `target`, if not the `first`."""
        vector, builder = self._vector, self._vector.builder
        totals = [builder.load(total) for total in self._totals]
        for begin in range(0, len(totals), vector.lanes):
            pointer = pointer_to(vector, target, begin)
            total = vector.sums(totals[begin : begin + vector.lanes])
            with builder.if_else(first.compare("!=", 0)) as (writing, adding):
                with writing:
                    vector.store(total, pointer)
                with adding:
                    vector.store(builder.fadd(total, vector.load(pointer)), pointer)


def store_total(
    vector: Vectors, target: Integer, source: Integer, chunks: Integer, step: Integer
) -> None:
    """Store the sum of one element of each chunk; at `source`, they are `step` elements apart."""
    builder = vector.builder
    total = cgutils.alloca_once(builder, vector.element)
    builder.store(builder.load(pointer_to(vector, source)), total)
    with counted(builder, 1, chunks) as chunk:
        summand = builder.load(pointer_to(vector, source, chunk * step))
        builder.store(builder.fadd(builder.load(total), summand), total)
    builder.store(builder.load(total), pointer_to(vector, target))
