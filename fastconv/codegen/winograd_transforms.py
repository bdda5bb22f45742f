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

from fastconv.codegen.constant_matrix import times
from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.epilogue_activation import activated
from fastconv.codegen.epilogue_max_pool import largest
from fastconv.codegen.row_copies import every, vectors_of
from fastconv.codegen.vector import Vectors, index
from fastconv.codegen.winograd_matrices import Matrix, winograd

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
def transform_pooled(  # type: ignore[no-untyped-def]
    typingctx, source, target, bias, numbers, form, plane, stride, m, r, bits, lanes
):
    """Do what `transform_outputs` does, then activate, and write the maxima of 2 x 2 squares.

    `numbers`, those of the activation, is an address. A tile has ``(m / 2)^2`` maxima.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, m_, size = vectors_of(builder, bits, lanes), m.literal_value, _alpha(m, r)
        addresses = arguments[:4]
        of, to, offset, values = (
            builder.inttoptr(a, vector.element.as_pointer()) for a in addresses
        )
        form, plane, stride = arguments[4:7]
        added = vector.broadcast(builder.load(offset))
        found: dict[tuple[int, int], Any] = {}

        def load(i: int, j: int) -> Any:
            return vector.load(vector.at(of, builder.mul(stride, index(i * size + j))))

        def keep(i: int, j: int, value: Any) -> None:
            found[i, j] = builder.fadd(value, added)

        both_ways(vector, winograd(m_, r.literal_value).outputs, load, keep)
        places, half = list(found), m_ // 2
        ready = dict(zip(places, activated(vector, found.values(), values, form), strict=True))
        for i in range(half):
            for j in range(half):
                square = [ready[2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)]
                where = vector.at(to, builder.mul(plane, index(i * half + j)))
                vector.store(largest(vector, *square), where)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def scatter_row(typingctx, target, row, width, left, count, plane, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``target[j * plane + k] = row[left + k * m + j]`` for j below m + r - 1, k below `count`.

    `target` and `row` are addresses. What lies outside the row's columns, 0 to `width`, is zero.
    Up to a vector beyond `count` is written.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        scatter = _Scatter(builder, vectors_of(builder, bits, lanes), arguments, m, r)
        with every(builder, arguments[4], lanes.literal_value) as (k, _):
            scatter.vector_at(k)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6, m, r, bits, lanes), generate


class _Scatter:
    """Writes one step of `scatter_row`: as many tiles as a vector has lanes."""

    def __init__(self, builder: Any, vector: Vectors, arguments: Any, m: Any, r: Any) -> None:
        self.builder, self.vector = builder, vector
        self.m, self.alpha = m.literal_value, _alpha(m, r)
        self.to, self.of = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        self.width, self.left, self.count, self.plane = arguments[2:6]

    def vector_at(self, k: Any) -> None:
        """Take apart what tiles `k`, `k + 1`, ... need of the row.

        Few tiles need two vectors only. More need m vectors and a tail: what the last tiles share
        with those behind them.
        """
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        first = builder.add(self.left, builder.mul(k, index(self.m)))
        few = (2 * lanes - (self.alpha - self.m)) // self.m
        tiles = builder.sub(self.count, k)
        with builder.if_else(builder.icmp_signed("<=", tiles, index(few))) as (then, otherwise):
            with then:
                one, two = self._masked(first, 2)
                # Half a vector has room enough where m is 4, and lies across fewer cache lines.
                room = lanes // 2 if few <= lanes // 2 else lanes
                for j in range(self.alpha):
                    picks = [min(j + self.m * t, 2 * lanes - 1) for t in range(room)]
                    self._keep(j, k, vector.shuffle(one, two, picks))
            with otherwise:
                end = builder.add(first, index((self.m + 1) * lanes))
                inside = builder.and_(
                    builder.icmp_signed(">=", first, index(0)),
                    builder.icmp_signed("<=", end, self.width),
                )
                with builder.if_else(inside) as (whole, partly):
                    with whole:
                        places = [builder.add(first, index(v * lanes)) for v in range(self.m + 1)]
                        self._many(k, [vector.load(vector.at(self.of, place)) for place in places])
                    with partly:
                        self._many(k, self._masked(first, self.m + 1))

    def _masked(self, first: Any, count: int) -> list[Any]:
        """Load vectors side by side, zeros outside the row."""
        builder, vector = self.builder, self.vector
        places = [builder.add(first, index(v * vector.lanes)) for v in range(count)]
        masks = [vector.within(place, self.width) for place in places]
        return [
            vector.load_masked(vector.at(self.of, place), mask)
            for place, mask in zip(places, masks, strict=True)
        ]

    def _many(self, k: Any, loaded: list[Any]) -> None:
        """Take m vectors apart; what lies m columns further is the same, a lane further."""
        vector, lanes, m = self.vector, self.vector.lanes, self.m
        *body, tail = loaded
        apart = vector.deinterleave(body)
        for j in range(self.alpha):
            value, (g, e) = apart[j % m], divmod(j, m)
            if g:
                behind = [lanes + (t + g - lanes) * m + e for t in range(lanes - g, lanes)]
                value = vector.shuffle(value, tail, [*range(g, lanes), *behind])
            self._keep(j, k, value)

    def _keep(self, j: int, k: Any, value: Any) -> None:
        vector = Vectors(self.builder, self.vector.element, value.type.count)
        vector.store(value, vector.at(self.to, self.builder.mul(self.plane, index(j)), k))


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
        store = Epilogue(vector, out, residual, numbers, form, index(0), index(0))
        _gather(vector, of, count, plane, width, step, store.one)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8, m, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def join_row(typingctx, source, out, count, plane, width, m, bits, lanes):  # type: ignore[no-untyped-def]
    """Do what `gather_row` does, without residual and activation."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        of, to = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])

        def keep(value: Any, column: Any, left: Any = None) -> None:
            if left is None:
                vector.store(value, vector.at(to, column))
            else:
                vector.store_masked(value, vector.at(to, column), vector.first(left))

        count, plane, width = arguments[2:5]
        _gather(vector, of, count, plane, width, m.literal_value, keep)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5, m, bits, lanes), generate


def _gather(
    vector: Vectors, of: Any, count: Any, plane: Any, width: Any, step: int, keep: Any
) -> None:
    """Call ``keep(value, column)`` for vectors of a row, the last with how many columns are left.

    Column ``k * step + j`` is element k of plane j.
    """
    builder = vector.builder
    with every(builder, count, vector.lanes) as (k, _):
        loaded = [vector.load(vector.at(of, builder.mul(plane, index(j)), k)) for j in range(step)]
        for v, value in enumerate(vector.interleave(loaded)):
            column = builder.add(builder.mul(k, index(step)), index(v * vector.lanes))
            left = builder.sub(width, column)
            with builder.if_then(builder.icmp_signed(">", left, index(0))):
                whole = builder.icmp_signed(">=", left, index(vector.lanes))
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        keep(value, column)
                    with otherwise:
                        keep(value, column, left)


def _alpha(m: Any, r: Any) -> int:
    """Return the side of a transformed tile."""
    return int(m.literal_value + r.literal_value - 1)
