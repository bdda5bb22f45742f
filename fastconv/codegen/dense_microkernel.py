"""Register tiles of matrix products, straight from where the matrices lie: nothing is packed.

Where rows of the second matrix are what is multiplied, lanes are over its columns (`outer`). Where
it is given turned, as weights are, both matrices have the sum's elements side by side, and lanes
are over these (`inner`). Tiles at the ends do their last row, or column, several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from fastconv.codegen.pool_microkernel import merge
from fastconv.codegen.vector import I64, Vectors, index

#: What tiles are called with, as 64-bit integers: addresses of the first row, of the first column
#: or turned column, and of the result; elements from one row of the first matrix to the next, from
#: one element of a sum to the next, and from one row of the others to the next; the length of the
#: sums; rows and columns that are left; whether `outer` adds to what the result holds.
ARGUMENTS = (
    *("a", "b", "out", "a_row", "a_step", "b_row", "out_row"),
    *("depth", "rows", "columns", "adds"),
)


class Product:
    """A block of elements of a product of two matrices."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.values = arguments
        self.a, self.b, self.out = (
            builder.inttoptr(self.values[name], element.as_pointer()) for name in ("a", "b", "out")
        )

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
        builder, vector, values, lanes = self.builder, self.vector, self.values, self.vector.lanes
        numbers = self._numbers(rows, "rows")
        starts = [vector.at(self.a, builder.mul(n, values["a_row"])) for n in numbers]
        places = [(r, v) for r in range(rows) for v in range(len(masks))]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            row = vector.at(self.b, builder.mul(k, values["b_row"]))
            factors = [
                self._load(vector.at(row, index(v * lanes)), mask) for v, mask in enumerate(masks)
            ]
            step = builder.mul(k, values["a_step"])
            own = [vector.broadcast(builder.load(vector.at(start, step))) for start in starts]
            return [
                vector.multiply_add(own[r], factors[v], total)
                for (r, v), total in zip(places, sums, strict=True)
            ]

        sums = _repeat(builder, values["depth"], [vector.zero] * len(places), body)
        starts = [vector.at(self.out, builder.mul(n, values["out_row"])) for n in numbers]
        targets = [vector.at(starts[r], index(v * lanes)) for r, v in places]
        before = builder.block
        with builder.if_then(builder.icmp_signed("!=", values["adds"], index(0))):
            # All are read before one is written: a row may be there several times.
            old = [self._load(at, masks[v]) for (_, v), at in zip(places, targets, strict=True)]
            added = [builder.fadd(a, b) for a, b in zip(old, sums, strict=True)]
            inside = builder.block
        results = [
            merge(builder, [(total, before), (new, inside)])
            for total, new in zip(sums, added, strict=True)
        ]
        for (_, v), at, result in zip(places, targets, results, strict=True):
            if masks[v]:
                vector.store_masked(result, at, masks[v])
            else:
                vector.store(result, at)

    def _load(self, at: Any, mask: Any) -> Any:
        return self.vector.load_masked(at, mask) if mask else self.vector.load(at)

    def inner(self, rows: int, columns: int) -> None:
        """Write ``rows * columns`` elements, at most as many as a vector has lanes."""
        builder, vector, values = self.builder, self.vector, self.values
        down, across = self._numbers(rows, "rows"), self._numbers(columns, "columns")
        left = [vector.at(self.a, builder.mul(n, values["a_row"])) for n in down]
        right = [vector.at(self.b, builder.mul(n, values["b_row"])) for n in across]
        places = [(r, c) for r in range(rows) for c in range(columns)]

        def products(sums: list[Any], load: Callable[[Any], Any]) -> list[Any]:
            factors, own = [load(at) for at in right], [load(at) for at in left]
            return [
                vector.multiply_add(own[r], factors[c], total)
                for (r, c), total in zip(places, sums, strict=True)
            ]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            step = builder.mul(k, index(vector.lanes))
            return products(sums, lambda at: vector.load(vector.at(at, step)))

        whole = builder.sdiv(values["depth"], index(vector.lanes))
        sums = _repeat(builder, whole, [vector.zero] * len(places), body)
        end = builder.mul(whole, index(vector.lanes))
        rest = vector.first(builder.sub(values["depth"], end))
        before, some = builder.block, builder.icmp_signed("<", end, values["depth"])
        with builder.if_then(some):
            more = products(sums, lambda at: vector.load_masked(vector.at(at, end), rest))
            inside = builder.block
        totals = vector.sums(
            [
                merge(builder, [(old, before), (new, inside)])
                for old, new in zip(sums, more, strict=True)
            ]
        )
        for i, (r, c) in enumerate(places):
            row = vector.at(self.out, builder.mul(down[r], values["out_row"]))
            builder.store(builder.extract_element(totals, index(i)), vector.at(row, across[c]))

    def _numbers(self, count: int, left: str) -> list[Any]:
        """Return the numbers below `count`, the last that there is in place of those beyond."""
        builder, last = self.builder, self.builder.sub(self.values[left], index(1))
        inside = [builder.icmp_signed("<", index(n), last) for n in range(count)]
        return [builder.select(inside[n], index(n), last) for n in range(count)]


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
