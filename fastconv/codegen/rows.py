"""Rows of elements, cleared, copied and transposed a vector at a time.

Clearing and copying may write up to one vector beyond the end of what they were asked for: targets
are buffers with that much room, filled from front to back. What is read is never exceeded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.vector import Vectors, index


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def clear_row(typingctx, target, count, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[:count] = 0``; `target` is an address, `bits` and `lanes` are constants."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = _vectors(builder, bits, lanes)
        place = builder.inttoptr(arguments[0], vector.element.as_pointer())
        with _every(builder, arguments[1], lanes.literal_value) as (k, _):
            vector.store(vector.zero, vector.at(place, k))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_row(typingctx, target, source, count, step, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[:count] = source[:count * step:step]``, and zeros up to the next whole vector.

    `target` and `source` are addresses; `step` is 1 or 2, it, `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = _vectors(builder, bits, lanes)
        to, of = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        size, apart = lanes.literal_value, step.literal_value
        parts = [index(part * size) for part in range(apart)]
        with _every(builder, arguments[2], size) as (k, _):
            begin = builder.mul(k, index(apart))
            # Elements of the source from here on: the last one wanted is the last one read.
            left = builder.mul(builder.sub(arguments[2], k), index(apart))
            left = builder.sub(left, index(apart - 1))
            whole = builder.icmp_signed(">=", left, index(size * apart))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    loaded = [vector.load(vector.at(of, begin, part)) for part in parts]
                    vector.store(_pick(vector, loaded), vector.at(to, k))
                with otherwise:
                    masks = [vector.first(builder.sub(left, part)) for part in parts]
                    loaded = [
                        vector.load_masked(vector.at(of, begin, part), mask)
                        for part, mask in zip(parts, masks, strict=True)
                    ]
                    vector.store(_pick(vector, loaded), vector.at(to, k))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3, step, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_element(typingctx, target, source, bits):  # type: ignore[no-untyped-def]
    """Do ``target[0] = source[0]``; both are addresses, `bits` is a constant."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(bits.literal_value).as_pointer()
        to, of = (builder.inttoptr(address, pointer) for address in arguments[:2])
        builder.store(builder.load(of), to)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, bits), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transpose_block(typingctx, target, to_row, source, of_row, rows, columns, wide, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[c, r] = source[r, c]`` for r below `wide` and c below `columns`.

    `target` and `source` are addresses, `to_row` and `of_row` elements from row to row. The source
    has `rows` rows, which may be fewer than `wide`: then zeros are written. No more than `lanes` of
    each are looked at. `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = _vectors(builder, bits, lanes)
        to, of = (builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 2))
        to_row, of_row, rows, columns, wide = (arguments[i] for i in (1, 3, 4, 5, 6))
        block = []
        for r in range(vector.lanes):
            there = builder.icmp_signed("<", index(r), rows)
            mask = vector.first(builder.select(there, columns, index(0)))
            place = vector.at(of, builder.mul(of_row, index(r)))
            block.append(vector.load_masked(place, mask))
        mask = vector.first(wide)
        for c, column in enumerate(vector.transpose(block)):
            with builder.if_then(builder.icmp_signed("<", index(c), columns)):
                vector.store_masked(column, vector.at(to, builder.mul(to_row, index(c))), mask)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7, bits, lanes), generate


def _pick(vector: Vectors, loaded: list[Any]) -> Any:
    """Return every second element of two vectors; one vector as it is."""
    if len(loaded) == 1:
        return loaded[0]
    return vector.shuffle(loaded[0], loaded[1], range(0, 2 * vector.lanes, 2))


def _vectors(builder: Any, bits: Any, lanes: Any) -> Vectors:
    element = ir.FloatType() if bits.literal_value == 32 else ir.DoubleType()
    return Vectors(builder, element, lanes.literal_value)


def _every(builder: Any, count: Any, step: int) -> Any:
    """Return a loop whose counter goes 0, step, 2 * step, ... below `count`."""
    return cgutils.for_range_slice(builder, index(0), count, index(step))
