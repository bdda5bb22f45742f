"""Rows of elements, cleared, copied and transposed a vector at a time.

Copying may write up to one vector beyond the end of what it was asked for: targets are buffers with
that much room, filled from front to back. What is read is never exceeded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.vector import I64, Vectors, index, prefetch


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def clear_row(typingctx, target, count, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[:count] = 0``; `target` is an address, `bits` and `lanes` are constants."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        place = builder.inttoptr(arguments[0], vector.element.as_pointer())
        with every(builder, arguments[1], vector.lanes) as (k, _):
            left = builder.sub(arguments[1], k)
            whole = builder.icmp_signed(">=", left, index(vector.lanes))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    vector.store(vector.zero, vector.at(place, k))
                with otherwise:
                    vector.store_masked(vector.zero, vector.at(place, k), vector.first(left))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_row(typingctx, target, row, width, left, distance, count, step, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[k] = row[left + k * distance]`` for k below `count`, 0 where that is outside.

    `target` and `row` are addresses; the row has the columns 0 to `width`. `distance` is `step`
    unless that is 0; it, `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        copy = _RowCopy(builder, vectors_of(builder, bits, lanes), arguments)
        with every(builder, arguments[5], lanes.literal_value if step.literal_value else 1) as k:
            if step.literal_value:
                copy.vector_at(k[0], step.literal_value)
            else:
                copy.element_at(k[0])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6, step, bits, lanes), generate


@intrinsic  # type: ignore[misc, unused-ignore]
def fetch(typingctx, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of an address, and do not wait for it; any address is allowed."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        prefetch(builder, builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_to_place(typingctx, target, places, wide, source, bits):  # type: ignore[no-untyped-def]
    """Do ``target[places[0] * wide] = source[0]``: addresses but for `wide`; `bits` is constant."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, types.literal(1))  # type: ignore[attr-defined, unused-ignore]
        to, of = (builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 3))
        place = builder.load(builder.inttoptr(arguments[1], I64.as_pointer()))
        builder.store(builder.load(of), vector.at(to, builder.mul(place, arguments[2])))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, bits), generate


class _RowCopy:
    """Writes one step of `copy_row`."""

    def __init__(self, builder: Any, vector: Vectors, arguments: Any) -> None:
        self.builder, self.vector = builder, vector
        self.to, self.of = (
            builder.inttoptr(address, vector.element.as_pointer()) for address in arguments[:2]
        )
        self.width, self.left, self.apart = arguments[2:5]

    def vector_at(self, k: Any, step: int) -> None:
        """Copy a whole vector; where the row ends within, by mask."""
        builder, vector = self.builder, self.vector
        first = builder.add(self.left, builder.mul(k, index(step)))
        parts = [builder.add(first, index(part * vector.lanes)) for part in range(step)]
        end = builder.add(first, index(step * vector.lanes))
        whole = builder.and_(
            builder.icmp_signed(">=", first, index(0)), builder.icmp_signed("<=", end, self.width)
        )
        with builder.if_else(whole) as (then, otherwise):
            with then:
                loaded = [vector.load(vector.at(self.of, part)) for part in parts]
                vector.store(_pick(vector, loaded), vector.at(self.to, k))
            with otherwise:
                masks = [vector.within(part, self.width) for part in parts]
                loaded = [
                    vector.load_masked(vector.at(self.of, part), mask)
                    for part, mask in zip(parts, masks, strict=True)
                ]
                vector.store(_pick(vector, loaded), vector.at(self.to, k))

    def element_at(self, k: Any) -> None:
        """Copy one element."""
        builder, to = self.builder, self.vector.at(self.to, k)
        column = builder.add(self.left, builder.mul(k, self.apart))
        inside = builder.icmp_unsigned("<", column, self.width)
        with builder.if_else(inside) as (then, otherwise):
            with then:
                builder.store(builder.load(self.vector.at(self.of, column)), to)
            with otherwise:
                builder.store(ir.Constant(self.vector.element, 0.0), to)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transpose_block(  # type: ignore[no-untyped-def]
    typingctx, target, to_row, source, of_row, places, rows, columns, wide, step, bits, lanes
):
    """Do ``target[places[c], r] = source[r, c * step]`` for r below `wide` and c below `columns`.

    `target`, `source` and `places` (of int64) are addresses, `to_row` and `of_row` elements from
    row to row. The source has `rows` rows, which may be fewer than `wide`: then zeros are written.
    No more than `lanes` of each are looked at. `step`, 1 or 2, `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, apart = vectors_of(builder, bits, lanes), step.literal_value
        to, of = (builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 2))
        to_row, of_row, rows, columns, wide = (arguments[i] for i in (1, 3, 5, 6, 7))
        places = builder.inttoptr(arguments[4], I64.as_pointer())
        whole_store = builder.icmp_signed(">=", wide, index(vector.lanes))
        narrow = vector.first(wide)

        def keep(column: Any, c: int, masked: bool) -> None:
            row = builder.mul(to_row, builder.load(builder.gep(places, [index(c)])))
            if masked:
                vector.store_masked(column, vector.at(to, row), narrow)
            else:
                vector.store(column, vector.at(to, row))

        # The usual block is whole, and then needs no masks. What follows the last column of a row
        # may not be there.
        whole = builder.and_(
            builder.icmp_signed(">=", rows, index(vector.lanes)),
            builder.icmp_signed(">=", columns, index(vector.lanes + apart - 1)),
        )
        with builder.if_else(whole) as (then, otherwise):
            with then:
                starts = [vector.at(of, builder.mul(of_row, index(r))) for r in range(vector.lanes)]
                parts = [
                    [
                        vector.load(vector.at(start, index(part * vector.lanes)))
                        for part in range(apart)
                    ]
                    for start in starts
                ]
                turned = vector.transpose([_pick(vector, some) for some in parts])
                with builder.if_else(whole_store) as (straight, masked):
                    with straight:
                        for c, column in enumerate(turned):
                            keep(column, c, False)
                    with masked:
                        for c, column in enumerate(turned):
                            keep(column, c, True)
            with otherwise:
                turned = _turned_part(vector, of, of_row, rows, columns, apart)
                for c, column in enumerate(turned):
                    with builder.if_then(builder.icmp_signed("<", index(c), columns)):
                        keep(column, c, True)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8, step, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transpose_some(  # type: ignore[no-untyped-def]
    typingctx, target, to_row, source, of_row, places, rows, columns, wide, bits, lanes
):
    """Do what `transpose_block` does, but for columns whose place is negative: these are left out.

    Blocks are taken to be seldom whole.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        to, of = (builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 2))
        to_row, of_row, rows, columns, wide = (arguments[i] for i in (1, 3, 5, 6, 7))
        places = builder.inttoptr(arguments[4], I64.as_pointer())
        mask = vector.first(wide)
        for c, column in enumerate(_turned_part(vector, of, of_row, rows, columns)):
            with builder.if_then(builder.icmp_signed("<", index(c), columns)):
                place = builder.load(builder.gep(places, [index(c)]))
                with builder.if_then(builder.icmp_signed(">=", place, index(0))):
                    vector.store_masked(column, vector.at(to, builder.mul(to_row, place)), mask)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def gather_block(  # type: ignore[no-untyped-def]
    typingctx, target, to_row, source, places, rows, columns, bits, lanes
):
    """Do ``target[r, c] = source[places[c] + r]`` for r below `rows` and c below `columns`.

    `target`, `source` and `places` (of int64) are addresses, `to_row` elements from row to row of
    the target. No more than `lanes` of each are looked at; so many elements of the source are
    read at each place, and so many places. `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        to, of = (builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 2))
        to_row, rows, columns = (arguments[i] for i in (1, 4, 5))
        places = builder.inttoptr(arguments[3], I64.as_pointer())
        found = [builder.load(builder.gep(places, [index(c)])) for c in range(vector.lanes)]
        turned = vector.transpose([vector.load(vector.at(of, place)) for place in found])
        whole = builder.and_(
            builder.icmp_signed(">=", rows, index(vector.lanes)),
            builder.icmp_signed(">=", columns, index(vector.lanes)),
        )
        with builder.if_else(whole) as (then, otherwise):
            with then:
                for r, row in enumerate(turned):
                    vector.store(row, vector.at(to, builder.mul(to_row, index(r))))
            with otherwise:
                mask = vector.first(columns)
                for r, row in enumerate(turned):
                    with builder.if_then(builder.icmp_signed("<", index(r), rows)):
                        place = vector.at(to, builder.mul(to_row, index(r)))
                        vector.store_masked(row, place, mask)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6, bits, lanes), generate


def _turned_part(
    vector: Vectors, of: Any, of_row: Any, rows: Any, columns: Any, step: int = 1
) -> list[Any]:
    """Return the columns of a block of which so many rows and columns are there, zeros beyond.

    Of each row every element is a column, or every second one.
    """
    builder, lanes = vector.builder, vector.lanes
    end = builder.sub(builder.mul(columns, index(step)), index(step - 1))
    there = [vector.first(builder.sub(end, index(part * lanes))) for part in range(step)]
    none = vector.first(index(0))
    block = []
    for r in range(lanes):
        wanted = builder.icmp_signed("<", index(r), rows)
        start = vector.at(of, builder.mul(of_row, index(r)))
        parts = [
            vector.load_masked(
                vector.at(start, index(part * lanes)), builder.select(wanted, there[part], none)
            )
            for part in range(step)
        ]
        block.append(_pick(vector, parts))
    return vector.transpose(block)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_part(typingctx, target, source, count, wide, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[k] = source[k]`` for k below `wide`, 0 from `count` on; at most `lanes` of them.

    `target` and `source` are addresses; `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        to, of = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        loaded = vector.load_masked(of, vector.first(arguments[2]))
        vector.store_masked(loaded, to, vector.first(arguments[3]))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, bits, lanes), generate


def _pick(vector: Vectors, loaded: list[Any]) -> Any:
    """Return every second element of two vectors; one vector as it is."""
    if len(loaded) == 1:
        return loaded[0]
    return vector.shuffle(loaded[0], loaded[1], range(0, 2 * vector.lanes, 2))


def vectors_of(builder: Any, bits: Any, lanes: Any) -> Vectors:
    """Return the vectors that literal numbers of bits and lanes describe."""
    element = ir.FloatType() if bits.literal_value == 32 else ir.DoubleType()
    return Vectors(builder, element, lanes.literal_value)


def every(builder: Any, count: Any, step: int) -> Any:
    """Return a loop whose counter goes 0, step, 2 * step, ... below `count`."""
    return cgutils.for_range_slice(builder, index(0), count, index(step))
