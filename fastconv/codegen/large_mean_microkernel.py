"""Means over windows of any size, a row of the window at a time, and what gradients send back."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.row_copies import every, vectors_of
from fastconv.codegen.vector import I64, Vectors, index


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
def share_vectors(  # type: ignore[no-untyped-def]
    typingctx, target, k, width, grad, first, end, left, right, row_divisors, column_divisors,
    outputs, bits, lanes, vectors,
):  # fmt: skip
    """Do ``target[k + n] = sum(share(j) for j whose window has column k + n)``.

    This is done for n below ``vectors * lanes``: numbers of which one share is found for all.

    Columns from `width` on are left out. Window j has the columns from ``left[j]`` on, before
    ``right[j]``, and shares ``sum(grad[i, j] / (row_divisors[i] * column_divisors[j]))`` for i from
    `first` to `end`; `outputs` windows stand in a row. `bits`, `lanes` and `vectors` are constants.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        starts = [index(v * vector.lanes) for v in range(vectors.literal_value)]
        to, grad, row_divisors, column_divisors = (
            builder.inttoptr(arguments[i], vector.element.as_pointer()) for i in (0, 3, 8, 9)
        )
        left, right = (builder.inttoptr(arguments[i], I64.as_pointer()) for i in (6, 7))
        k, width, first, end, outputs = (arguments[i] for i in (1, 2, 4, 5, 10))
        sums = [cgutils.alloca_once_value(builder, vector.zero) for _ in starts]
        with cgutils.for_range(builder, outputs) as column:
            j = column.index
            begin, behind = (builder.load(builder.gep(table, [j])) for table in (left, right))
            meets = builder.and_(
                builder.icmp_signed("<", begin, builder.add(k, index(len(starts) * vector.lanes))),
                builder.icmp_signed(">", behind, k),
            )
            with builder.if_then(meets):
                share = cgutils.alloca_once_value(builder, vector.element(0.0))
                divisor = builder.load(vector.at(column_divisors, j))
                with cgutils.for_range_slice(builder, first, end, index(1)) as (i, _):
                    sent = builder.load(vector.at(grad, builder.mul(i, outputs), j))
                    row = builder.load(vector.at(row_divisors, i))
                    sent = builder.fdiv(sent, builder.fmul(row, divisor))
                    builder.store(builder.fadd(builder.load(share), sent), share)
                share = vector.broadcast(builder.load(share))
                for start, total in zip(starts, sums, strict=True):
                    from_begin = builder.sub(builder.add(k, start), begin)
                    inside = vector.within(from_begin, builder.sub(behind, begin))
                    old = builder.load(total)
                    new = builder.fadd(old, share)
                    builder.store(builder.select(inside, new, old), total)
        for start, total in zip(starts, sums, strict=True):
            column = builder.add(k, start)
            mask = vector.within(column, width)
            vector.store_masked(builder.load(total), vector.at(to, column), mask)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 11, bits, lanes, vectors), generate


def _total(vector: Vectors, values: Any) -> Any:
    """Return the sum of all lanes: halves are added to halves."""
    width = vector.lanes
    while width > 1:
        width //= 2
        picks = [(k + width) % vector.lanes for k in range(vector.lanes)]
        values = vector.builder.fadd(values, vector.shuffle(values, values, picks))
    return vector.builder.extract_element(values, index(0))
