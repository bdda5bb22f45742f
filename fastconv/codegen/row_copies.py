"""The blocks of `packing` as intrinsics, for loops that Numba compiles.

`bits` and `lanes` of the vectors are constants, as is `step`; all else are numbers and addresses.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen import packing
from fastconv.codegen.vector import I64, Vectors, index, prefetch


def _block(write: Any, numbers: int, step: Any, bits: Any, lanes: Any) -> tuple[Any, Any]:
    """Return what an intrinsic returns that writes a block of `packing`."""
    constants = () if step is None else (step,)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        write(vector, *arguments[:numbers], *(each.literal_value for each in constants))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * numbers, *constants, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def clear_row(typingctx, target, count, bits, lanes):  # type: ignore[no-untyped-def]
    """Do what `packing.clear_row` does."""
    return _block(packing.clear_row, 2, None, bits, lanes)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_row(typingctx, target, row, width, left, distance, count, step, bits, lanes):  # type: ignore[no-untyped-def]
    """Do what `packing.copy_row` does."""
    return _block(packing.copy_row, 6, step, bits, lanes)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transpose_block(  # type: ignore[no-untyped-def]
    typingctx, target, to_row, source, of_row, places, rows, columns, wide, step, bits, lanes
):
    """Do what `packing.transpose_block` does."""
    return _block(packing.transpose_block, 8, step, bits, lanes)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def gather_block(  # type: ignore[no-untyped-def]
    typingctx, target, to_row, source, places, rows, columns, bits, lanes
):
    """Do what `packing.gather_block` does."""
    return _block(packing.gather_block, 6, None, bits, lanes)


@intrinsic  # type: ignore[misc, unused-ignore]
def fetch(typingctx, place):  # type: ignore[no-untyped-def]
    """Prefetch the cache line of an address; any address is allowed."""

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


def vectors_of(builder: Any, bits: Any, lanes: Any) -> Vectors:
    """Return the vectors that literal numbers of bits and lanes describe."""
    element = ir.FloatType() if bits.literal_value == 32 else ir.DoubleType()
    return Vectors(builder, element, lanes.literal_value)


def every(builder: Any, count: Any, step: int) -> Any:
    """Return a loop whose counter goes 0, step, 2 * step, ... below `count`."""
    return cgutils.for_range_slice(builder, index(0), count, index(step))
