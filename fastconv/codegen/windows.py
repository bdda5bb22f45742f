"""Means over windows of any size, a row of the window at a time, and what gradients send back."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.rows import every, vectors_of
from fastconv.codegen.vector import Vectors, index


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def mean_window(  # type: ignore[no-untyped-def]
    typingctx, target, source, row_size, rows, columns, row_divisor, column_divisor, bits, lanes
):
    """Do ``target[0] = sum(source[r, s]) / (row_divisor[0] * column_divisor[0])``.

    `target`, `source` and the divisors are addresses; the source has `rows` rows of `columns`
    elements, `row_size` elements apart. `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        to, of, row_divisor, column_divisor = (
            builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 1, 5, 6)
        )
        row_size, rows, columns = arguments[2:5]
        sums = cgutils.alloca_once_value(builder, vector.zero)
        with cgutils.for_range(builder, rows) as row:
            line = vector.at(of, builder.mul(row.index, row_size))
            with every(builder, columns, vector.lanes) as (k, _):
                mask = vector.within(index(0), builder.sub(columns, k))
                values = vector.load_masked(vector.at(line, k), mask)
                builder.store(builder.fadd(builder.load(sums), values), sums)
        divisor = builder.fmul(builder.load(row_divisor), builder.load(column_divisor))
        builder.store(builder.fdiv(_total(vector, builder.load(sums)), divisor), to)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def share_row(  # type: ignore[no-untyped-def]
    typingctx, target, done, left, right, grad, row_size, first, end, row_divisors, column_divisor,
    bits, lanes,
):  # fmt: skip
    """Add to ``target[left:right]`` what a column of windows sends: first the gap, then the share.

    The share is ``sum(grad[i, 0] / (row_divisors[i] * column_divisor[0]))`` for i from `first` to
    `end`. Of the target `done` elements were written before: those behind them up to `left`
    become 0, those behind them up to `right` the share. `bits` and `lanes` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        to, grad, row_divisors, column_divisor = (
            builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 4, 8, 9)
        )
        done, left, right, _, row_size, first, end = arguments[1:8]
        share = cgutils.alloca_once_value(builder, vector.element(0.0))
        with cgutils.for_range_slice(builder, first, end, index(1)) as (i, _):
            sent = builder.load(vector.at(grad, builder.mul(i, row_size)))
            row = builder.load(vector.at(row_divisors, i))
            sent = builder.fdiv(sent, builder.fmul(row, builder.load(column_divisor)))
            builder.store(builder.fadd(builder.load(share), sent), share)
        with cgutils.for_range_slice(builder, done, left, index(vector.lanes)) as (k, _):
            mask = vector.within(index(0), builder.sub(left, k))
            vector.store_masked(vector.zero, vector.at(to, k), mask)
        value = vector.broadcast(builder.load(share))
        with cgutils.for_range_slice(builder, left, right, index(vector.lanes)) as (k, _):
            place, start = vector.at(to, k), index(0)
            before = vector.within(start, _not_negative(builder, builder.sub(done, k)))
            old = vector.load_masked(place, before)
            mask = vector.within(start, builder.sub(right, k))
            vector.store_masked(builder.fadd(old, value), place, mask)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 10, bits, lanes), generate


def _not_negative(builder: Any, value: Any) -> Any:
    return builder.select(builder.icmp_signed("<", value, index(0)), index(0), value)


def _total(vector: Vectors, values: Any) -> Any:
    """Return the sum of all lanes: halves are added to halves."""
    width = vector.lanes
    while width > 1:
        width //= 2
        picks = [(k + width) % vector.lanes for k in range(vector.lanes)]
        values = vector.builder.fadd(values, vector.shuffle(values, values, picks))
    return vector.builder.extract_element(values, index(0))
