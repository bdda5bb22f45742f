"""GEMM microkernels without packing.

If B is not transposed, vectors run over its columns (`outer`, outer products). If B is transposed,
as weights are, both matrices are contiguous along the reduction axis, and vectors run over it
(`inner`, inner products). Tiles at the edges compute their last row or column several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from fastconv.codegen.integers import Integer
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.vector import add_source, index, phis, updated_if


class DenseMicrokernel(Microkernel):
    """Computes one tile of a matrix product.

    Its arguments: addresses `a`, `b` and `out` of A, B and the result; strides in elements of a row
    of A, `a_row`, of the reduction axis in A, `a_step`, and of a row of B and of the result,
    `b_row` and `out_row`; the length of the reduction, `depth`; `rows` and `columns` that remain;
    whether `outer` adds to the result, `adds`.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any) -> None:
        super().__init__(builder, bits, lanes, v)
        self.a, self.b = self.operands("a", "b")
        (self.out,) = self.accumulators("out")

    def outer(self, rows: int, vectors: int) -> None:
        """Emit a tile of `rows` rows and `vectors` vectors of columns."""
        columns, lanes = self.v.columns, self.vector.lanes
        whole = columns.compare(">=", vectors * lanes)
        with self.builder.if_else(whole) as (then, otherwise):
            with then:
                self._outer(rows, [None] * vectors)
            with otherwise:
                left = [columns - v * lanes for v in range(vectors)]
                self._outer(rows, [self.vector.first(count) for count in left])

    def _outer(self, rows: int, masks: Sequence[Any]) -> None:
        builder, vector, operand, lanes = self.builder, self.vector, self.operand, self.vector.lanes
        v = self.v
        numbers = _existing(rows, v.rows)
        starts = [operand.at(self.a, n * v.a_row) for n in numbers]
        positions = list(product(range(rows), range(len(masks))))

        def body(k: Any, sums: list[Any]) -> list[Any]:
            row = operand.at(self.b, k * v.b_row)
            factors = [operand.load(operand.at(row, n * lanes), m) for n, m in enumerate(masks)]
            step = k * v.a_step
            own = [operand.broadcast(builder.load(operand.at(start, step))) for start in starts]
            return [
                operand.dot(own[r], factors[n], total)
                for (r, n), total in zip(positions, sums, strict=True)
            ]

        sums = _repeat(builder, v.depth, [vector.zero] * len(positions), body)
        starts = [vector.at(self.out, n * v.out_row) for n in numbers]
        targets = [(vector.at(starts[r], n * lanes), masks[n]) for r, n in positions]

        def added() -> list[Any]:
            # Read all before writing any: a row may occur several times.
            old = [vector.load(*target) for target in targets]
            return [builder.fadd(a, b) for a, b in zip(old, sums, strict=True)]

        results = updated_if(builder, v.adds.compare("!=", 0), sums, added)
        for target, result in zip(targets, results, strict=True):
            vector.store(result, *target)

    def inner(self, rows: int, columns: int) -> None:
        """Emit a tile of ``rows * columns`` elements, at most the lanes of a vector."""
        builder, vector, operand, v = self.builder, self.vector, self.operand, self.v
        down, across = _existing(rows, v.rows), _existing(columns, v.columns)
        left = [operand.at(self.a, n * v.a_row) for n in down]
        right = [operand.at(self.b, n * v.b_row) for n in across]
        positions = list(product(range(rows), range(columns)))

        def products(sums: list[Any], at: Any, mask: Any = None) -> list[Any]:
            factors, own = (
                [operand.load(operand.at(start, at), mask) for start in starts]
                for starts in (right, left)
            )
            return [
                operand.dot(own[r], factors[c], total)
                for (r, c), total in zip(positions, sums, strict=True)
            ]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            return products(sums, k * operand.lanes)

        whole = v.depth // operand.lanes
        sums = _repeat(builder, whole, [vector.zero] * len(positions), body)
        end = whole * operand.lanes
        rest = operand.first(v.depth - end)
        some = end.compare("<", v.depth)
        totals = vector.sums(updated_if(builder, some, sums, lambda: products(sums, end, rest)))
        for i, (r, c) in enumerate(positions):
            target = vector.at(self.out, down[r] * v.out_row, across[c])
            builder.store(builder.extract_element(totals, index(i)), target)


def _existing(count: int, left: Integer) -> list[Integer]:
    """Return ``min(i, left - 1)`` for each i below `count`."""
    return [(left - 1).at_most(n) for n in range(count)]


def _repeat(
    builder: Any,
    count: Integer,
    values: Sequence[Any],
    body: Callable[[Integer, list[Any]], Sequence[Any]],
) -> list[Any]:
    """Return ``values`` after ``values = body(k, values)`` for each k below `count`."""

    def loop() -> Sequence[Any]:
        before, head = builder.block, builder.append_basic_block("sum")
        builder.branch(head)
        builder.position_at_end(head)
        number, *old = nodes = phis(builder, (before, (index(0), *values)))
        k = Integer(builder, number)
        new = body(k, old)
        following, end, after = k + 1, builder.block, builder.append_basic_block("summed")
        builder.cbranch(following.compare("<", count), head, after)
        add_source(nodes, end, (following.value, *new))
        builder.position_at_end(after)
        return new

    return updated_if(builder, count.compare(">", 0), values, loop)
