"""Sums over pixels in registers: each lane sums its own pixels, and lanes are reduced at the end.

The weight-gradient microkernels that are vectorized over pixels share this. They read both factors
in place, without packing.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.vector import Vectors


class SumsOverPixels:
    """`count` sums, initially zero."""

    def __init__(self, vector: Vectors, count: int) -> None:
        self._vector = vector
        # The optimizer turns these into registers.
        self._totals = [cgutils.alloca_once(vector.builder, vector.type) for _ in range(count)]
        for total in self._totals:
            vector.builder.store(vector.zero, total)

    def add_product(self, number: int, a: Any, b: Any) -> None:
        """Add ``a * b`` to one of the sums."""
        vector, total = self._vector, self._totals[number]
        product = vector.multiply_add(a, b, vector.builder.load(total))
        vector.builder.store(vector.barrier(product), total)

    def store(self, target: Integer, first: Integer) -> None:
        """Reduce the lanes of each sum; store it at `target` if `first`, else add it there."""
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
    """Store the sum of one element per chunk, read from `source` with stride `step`."""
    builder = vector.builder
    total = cgutils.alloca_once(builder, vector.element)
    builder.store(builder.load(pointer_to(vector, source)), total)
    with counted(builder, 1, chunks) as chunk:
        summand = builder.load(pointer_to(vector, source, chunk * step))
        builder.store(builder.fadd(builder.load(total), summand), total)
    builder.store(builder.load(total), pointer_to(vector, target))
