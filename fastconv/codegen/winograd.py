"""Winograd's transforms as vector code, a vector of tiles at a time.

Three transforms surround the products: of the inputs, of the weights and of the outputs. Each is
a small matrix times the columns, then the rows, of a tile; a vector holds one element of as many
tiles as it has lanes, so no element ever changes its lane::

    inputs    (m + r - 1)^2 -> (m + r - 1)^2      B d B^T
    weights             r^2 -> (m + r - 1)^2      G g G^T
    outputs   (m + r - 1)^2 -> m^2                A p A^T

For that the elements of a row of the image are taken apart before, columns 0, m, 2 * m, ... first
(`scatter_row`), and put together again behind (`gather_row`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.codegen.interpolation import Matrix, winograd
from fastconv.codegen.linear import times
from fastconv.codegen.rows import every, vectors_of
from fastconv.codegen.store import Store
from fastconv.codegen.vector import Vectors, index

Load = Callable[[int, int], Any]
Keep = Callable[[int, int, Any], None]


def both_ways(vector: Vectors, matrix: Matrix, load: Load, keep: Keep) -> None:
    """Write ``T X T^T``: `load` gives the elements of X, `keep` takes those of the result."""
    size = len(matrix[0])
    columns = [times(vector, matrix, [load(i, j) for i in range(size)]) for j in range(size)]
    for i in range(len(matrix)):
        for j, value in enumerate(times(vector, matrix, [column[i] for column in columns])):
            keep(i, j, value)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transform_inputs(typingctx, source, target, plane, across, stride, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform a vector of tiles, scattered as `scatter_row` leaves them.

    `source` and `target` are addresses. Element (i, j) is read from row ``i // m`` of plane
    ``(i % m) * (m + r - 1) + j``: planes are `plane` elements apart, rows `across`. It is written
    `stride` elements behind the one before.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, m_, size = vectors_of(builder, bits, lanes), m.literal_value, _alpha(m, r)
        of, to = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        plane, across, stride = arguments[2:5]

        def load(i: int, j: int) -> Any:
            where = builder.mul(plane, index(i % m_ * size + j))
            return vector.load(vector.at(of, where, builder.mul(across, index(i // m_))))

        def keep(i: int, j: int, value: Any) -> None:
            vector.store(value, vector.at(to, builder.mul(stride, index(i * size + j))))

        both_ways(vector, winograd(m_, r.literal_value).inputs, load, keep)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transform_weights(typingctx, source, target, plane, stride, count, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform up to `count` filters of one vector, in double precision, rounded once.

    Taps are read `plane` elements apart, results are written `stride` elements apart.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, r_, size = vectors_of(builder, bits, lanes), r.literal_value, _alpha(m, r)
        double = Vectors(builder, ir.DoubleType(), lanes.literal_value)
        of, to = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        plane, stride, count = arguments[2:5]
        mask = vector.first(count)

        def load(i: int, j: int) -> Any:
            where = vector.at(of, builder.mul(plane, index(i * r_ + j)))
            value = vector.load_masked(where, mask)
            return builder.fpext(value, double.type) if bits.literal_value == 32 else value

        def keep(i: int, j: int, value: Any) -> None:
            value = builder.fptrunc(value, vector.type) if bits.literal_value == 32 else value
            where = vector.at(to, builder.mul(stride, index(i * size + j)))
            vector.store_masked(value, where, mask)

        both_ways(double, winograd(m.literal_value, r_).weights, load, keep)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transform_outputs(typingctx, source, target, bias, plane, stride, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform a vector of tiles of products to outputs, and add the bias (an address).

    Products are read `stride` elements apart, outputs are written `plane` elements apart.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, m_, size = vectors_of(builder, bits, lanes), m.literal_value, _alpha(m, r)
        of, to, offset = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:3])
        plane, stride = arguments[3:5]
        added = vector.broadcast(builder.load(offset))

        def load(i: int, j: int) -> Any:
            return vector.load(vector.at(of, builder.mul(stride, index(i * size + j))))

        def keep(i: int, j: int, value: Any) -> None:
            where = vector.at(to, builder.mul(plane, index(i * m_ + j)))
            vector.store(builder.fadd(value, added), where)

        both_ways(vector, winograd(m_, r.literal_value).outputs, load, keep)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def scatter_row(typingctx, target, row, width, left, count, plane, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[j * plane + k] = row[left + k * m + j]`` for j below m + r - 1, k below `count`.

    `target` and `row` are addresses. What lies outside the row's columns, 0 to `width`, is zero.
    Up to a vector beyond `count` is written.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, step, size = vectors_of(builder, bits, lanes), m.literal_value, _alpha(m, r)
        to, of = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        width, left, count, plane = arguments[2:6]
        groups = -(-size // step)

        def copy(k: Any, parts: list[list[Any]], read: Callable[[Any], Any]) -> None:
            for g, columns in enumerate(parts):
                loaded = [read(column) for column in columns]
                for e, value in enumerate(vector.deinterleave(loaded)[: size - g * step]):
                    where = builder.mul(plane, index(g * step + e))
                    vector.store(value, vector.at(to, where, k))

        with every(builder, count, vector.lanes) as (k, _):
            first = builder.add(left, builder.mul(k, index(step)))
            parts = [
                [builder.add(first, index(g * step + v * vector.lanes)) for v in range(step)]
                for g in range(groups)
            ]
            end = builder.add(parts[-1][-1], index(vector.lanes))
            whole = builder.and_(
                builder.icmp_signed(">=", first, index(0)), builder.icmp_signed("<=", end, width)
            )
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    copy(k, parts, lambda column: vector.load(vector.at(of, column)))
                with otherwise:

                    def masked(column: Any) -> Any:
                        return vector.load_masked(
                            vector.at(of, column), vector.within(column, width)
                        )

                    copy(k, parts, masked)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def gather_row(  # type: ignore[no-untyped-def]
    typingctx, source, out, residual, numbers, form, count, plane, width, m, bits, lanes
):
    """Do ``out[k * m + j] = activation(source[j * plane + k] + residual[k * m + j])``.

    That is for j below m, k below `count`, where it is below `width`; nothing else is written.
    `source`, `out`, `residual` (or 0) and `numbers`, those of the activation, are addresses.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, step = vectors_of(builder, bits, lanes), m.literal_value
        source, out, residual, numbers, form, count, plane, width = arguments[:8]
        of = builder.inttoptr(source, vector.element.as_pointer())
        store = Store(vector, out, residual, numbers, form, index(0), index(0))
        with every(builder, count, vector.lanes) as (k, _):
            loaded = [
                vector.load(vector.at(of, builder.mul(plane, index(j)), k)) for j in range(step)
            ]
            for v, value in enumerate(vector.interleave(loaded)):
                column = builder.add(builder.mul(k, index(step)), index(v * vector.lanes))
                left = builder.sub(width, column)
                with builder.if_then(builder.icmp_signed(">", left, index(0))):
                    whole = builder.icmp_signed(">=", left, index(vector.lanes))
                    with builder.if_else(whole) as (then, otherwise):
                        with then:
                            store.one(value, column)
                        with otherwise:
                            store.one(value, column, vector.first(left))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8, m, bits, lanes), generate


def _alpha(m: Any, r: Any) -> int:
    """Return the side of a transformed tile."""
    return int(m.literal_value + r.literal_value - 1)
