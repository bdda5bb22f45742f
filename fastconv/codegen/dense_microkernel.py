"""The microkernels of matrix products in place: nothing is packed.

If the second matrix is given as it is, vectors run over its columns (`outer`). If it is given
transposed, as weights are, both matrices have the elements of a sum side by side, and vectors run
over these (`inner`). Tiles at the ends compute their last row, or column, several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.pool_microkernel import merge
from fastconv.codegen.vector import I64, Vectors, index

#: What they compute a tile from, as 64-bit integers: addresses of the first row, of the first
#: column or transposed column, and of the result; elements from one row of the first matrix to the
#: next, from one element of a sum to the next, and from one row of the others to the next; the
#: length of the sums; rows and columns that are left; whether `outer` adds to the result.
ARGUMENTS = (
    *("a", "b", "out", "a_row", "a_step", "b_row", "out_row"),
    *("depth", "rows", "columns", "adds"),
)


class DenseMicrokernel(Microkernel):
    """A block of elements of a product of two matrices."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        super().__init__(builder, bits, lanes, arguments)
        self.a, self.b = self.operands("a", "b")
        (self.out,) = self.accumulators("out")

    def outer(self, rows: int, vectors: int) -> None:
        """Write `rows` times as many columns as that many vectors have."""
        builder, values, lanes = self.builder, self.values, self.vector.lanes
        whole = builder.icmp_signed(">=", values["columns"], index(vectors * lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                self._outer(rows, [None] * vectors)
            with otherwise:
                left = (builder.sub(values["columns"], index(v * lanes)) for v in range(vectors))
                self._outer(rows, [self.vector.first(count) for count in left])

    def _outer(self, rows: int, masks: Sequence[Any]) -> None:
        builder, vector, operand = self.builder, self.vector, self.operand
        values, lanes = self.values, vector.lanes
        numbers = self._numbers(rows, "rows")
        starts = [operand.at(self.a, builder.mul(n, values["a_row"])) for n in numbers]
        positions = [(r, v) for r in range(rows) for v in range(len(masks))]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            row = operand.at(self.b, builder.mul(k, values["b_row"]))
            factors = [
                _load(operand, operand.at(row, index(v * lanes)), mask)
                for v, mask in enumerate(masks)
            ]
            step = builder.mul(k, values["a_step"])
            own = [operand.broadcast(builder.load(operand.at(start, step))) for start in starts]
            return [
                operand.dot(own[r], factors[v], total)
                for (r, v), total in zip(positions, sums, strict=True)
            ]

        sums = _repeat(builder, values["depth"], [vector.zero] * len(positions), body)
        starts = [vector.at(self.out, builder.mul(n, values["out_row"])) for n in numbers]
        targets = [vector.at(starts[r], index(v * lanes)) for r, v in positions]
        before = builder.block
        with builder.if_then(builder.icmp_signed("!=", values["adds"], index(0))):
            # All are read before one is written: a row may be there several times.
            old = [
                _load(vector, at, masks[v]) for (_, v), at in zip(positions, targets, strict=True)
            ]
            added = [builder.fadd(a, b) for a, b in zip(old, sums, strict=True)]
            inside = builder.block
        results = [
            merge(builder, [(total, before), (new, inside)])
            for total, new in zip(sums, added, strict=True)
        ]
        for (_, v), at, result in zip(positions, targets, results, strict=True):
            if masks[v]:
                vector.store_masked(result, at, masks[v])
            else:
                vector.store(result, at)

    def inner(self, rows: int, columns: int) -> None:
        """Write ``rows * columns`` elements, at most as many as a vector has lanes."""
        builder, vector, operand = self.builder, self.vector, self.operand
        values = self.values
        down, across = self._numbers(rows, "rows"), self._numbers(columns, "columns")
        left = [operand.at(self.a, builder.mul(n, values["a_row"])) for n in down]
        right = [operand.at(self.b, builder.mul(n, values["b_row"])) for n in across]
        positions = [(r, c) for r in range(rows) for c in range(columns)]

        def products(sums: list[Any], load: Callable[[Any], Any]) -> list[Any]:
            factors, own = [load(at) for at in right], [load(at) for at in left]
            return [
                operand.dot(own[r], factors[c], total)
                for (r, c), total in zip(positions, sums, strict=True)
            ]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            step = builder.mul(k, index(operand.lanes))
            return products(sums, lambda at: operand.load(operand.at(at, step)))

        whole = builder.sdiv(values["depth"], index(operand.lanes))
        sums = _repeat(builder, whole, [vector.zero] * len(positions), body)
        end = builder.mul(whole, index(operand.lanes))
        rest = operand.first(builder.sub(values["depth"], end))
        before, some = builder.block, builder.icmp_signed("<", end, values["depth"])
        with builder.if_then(some):
            more = products(sums, lambda at: operand.load_masked(operand.at(at, end), rest))
            inside = builder.block
        totals = vector.sums(
            [
                merge(builder, [(old, before), (new, inside)])
                for old, new in zip(sums, more, strict=True)
            ]
        )
        for i, (r, c) in enumerate(positions):
            row = vector.at(self.out, builder.mul(down[r], values["out_row"]))
            builder.store(builder.extract_element(totals, index(i)), vector.at(row, across[c]))

    def _numbers(self, count: int, left: str) -> list[Any]:
        """Return the numbers below `count`, the last one in place of those beyond."""
        builder, last = self.builder, self.builder.sub(self.values[left], index(1))
        inside = [builder.icmp_signed("<", index(n), last) for n in range(count)]
        return [builder.select(inside[n], index(n), last) for n in range(count)]


def _load(vector: Vectors, at: Any, mask: Any) -> Any:
    return vector.load_masked(at, mask) if mask else vector.load(at)


def _repeat(
    builder: Any,
    count: Any,
    values: Sequence[Any],
    body: Callable[[Any, list[Any]], Sequence[Any]],
) -> list[Any]:
    """Return ``values`` after ``values = body(k, values)`` for each k below `count`."""
    before = builder.block
    head, after = builder.append_basic_block("sum"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed(">", count, index(0)), head, after)
    builder.position_at_end(head)
    k = builder.phi(I64)
    old = [merge(builder, [(value, before)]) for value in values]
    new = body(k, old)
    following, end = builder.add(k, index(1)), builder.block
    builder.cbranch(builder.icmp_signed("<", following, count), head, after)
    k.add_incoming(index(0), before)
    k.add_incoming(following, end)
    for phi, value in zip(old, new, strict=True):
        phi.add_incoming(value, end)
    builder.position_at_end(after)
    both = zip(values, new, strict=True)
    return [merge(builder, [(first, before), (last, end)]) for first, last in both]
