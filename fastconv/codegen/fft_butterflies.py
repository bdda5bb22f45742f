"""Fourier transforms of many planes at once: each lane of a vector is a plane of its own.

A point is a vector of real parts and, behind it, one of imaginary parts. Two blocks of real planes
make one block of complex ones: the first block is the real part, the second the imaginary part.
Nothing is shuffled between lanes but where planes are read and written.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.codegen.vector import I64, Vectors, index

#: Integers that describe a plane which is read: the address of its first element (which may lie
#: outside the image), then the first row and the end of the rows, and of the columns, that exist.
READ_FIELDS = 5
#: And one that is written: the address of its first element, its rows and its columns.
WRITTEN_FIELDS = 3

Point = tuple[Any, Any]


class Lanes:
    """Writes the steps of transforms; addresses are LLVM integers."""

    def __init__(self, builder: Any, bits: int, lanes: int) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self._point_bytes = 2 * lanes * bits // 8

    def pointer(self, address: Any) -> Any:
        """Return the address as a pointer to elements."""
        return self.builder.inttoptr(address, self.vector.element.as_pointer())

    def number(self, address: Any, place: int) -> Any:
        """Return integer number `place` of a table."""
        table = self.builder.inttoptr(address, I64.as_pointer())
        return self.builder.load(self.builder.gep(table, [index(place)]))

    def point(self, base: Any, place: Any) -> Any:
        """Return the pointer to a point."""
        distance = self.builder.mul(place, index(self._point_bytes))
        return self.pointer(self.builder.add(base, distance))

    def imaginary(self, point: Any) -> Any:
        """Return the pointer to the imaginary part of a point."""
        return self.vector.at(point, index(self.vector.lanes))

    def load(self, point: Any) -> Point:
        """Return a point."""
        return self.vector.load(point), self.vector.load(self.imaginary(point))

    def store(self, value: Point, point: Any) -> None:
        """Write a point."""
        self.vector.store(value[0], point)
        self.vector.store(value[1], self.imaginary(point))

    def add(self, a: Point, b: Point) -> Point:
        """Return ``a + b``."""
        return self.builder.fadd(a[0], b[0]), self.builder.fadd(a[1], b[1])

    def subtract(self, a: Point, b: Point) -> Point:
        """Return ``a - b``."""
        return self.builder.fsub(a[0], b[0]), self.builder.fsub(a[1], b[1])

    def times(self, a: Point, factors: Any, place: int) -> Point:
        """Return ``a`` times complex number `place` of a table."""
        vector, builder = self.vector, self.builder
        real, imaginary = (
            vector.broadcast(builder.load(vector.at(factors, index(2 * place + part))))
            for part in (0, 1)
        )
        negative = builder.fneg(builder.fmul(a[1], imaginary))
        crossed = builder.fmul(a[0], imaginary)
        return (
            vector.multiply_add(a[0], real, negative),
            vector.multiply_add(a[1], real, crossed),
        )

    def butterfly(self, radix: int, base: Any, distance: Any, factors: Any) -> None:
        """Transform `radix` points, 2 or 4 of them, in place, and turn all but the first."""
        places = [
            self.pointer(self.builder.add(base, self.builder.mul(distance, index(number))))
            for number in range(radix)
        ]
        points = [self.load(place) for place in places]
        if radix == 2:
            results = [self.add(*points), self.subtract(*points)]
        else:
            a, b, c, d = points
            even, odd = self.add(a, c), self.add(b, d)
            real, crossed = self.subtract(a, c), self.subtract(b, d)
            turned = crossed[1], self.builder.fneg(crossed[0])  # times -i
            results = [
                self.add(even, odd),
                self.times(self.add(real, turned), factors, 0),
                self.times(self.subtract(even, odd), factors, 1),
                self.times(self.subtract(real, turned), factors, 2),
            ]
        for result, place in zip(results, places, strict=True):
            self.store(result, place)

    def load_complex(self, pointer: Any, left: Any) -> Point:
        """Return the first `left` of a vector of complex numbers; zeros behind them."""
        vector = self.vector
        low, high = (
            vector.load_masked(vector.at(pointer, index(half * vector.lanes)), mask)
            for half, mask in enumerate(self._halves(left))
        )
        real, imaginary = (
            vector.shuffle(low, high, range(part, 2 * vector.lanes, 2)) for part in (0, 1)
        )
        return real, imaginary

    def store_complex(self, value: Point, pointer: Any, left: Any) -> None:
        """Write the first `left` of a vector of complex numbers."""
        vector = self.vector
        picks = [i // 2 + i % 2 * vector.lanes for i in range(2 * vector.lanes)]
        for half, mask in enumerate(self._halves(left)):
            some = picks[half * vector.lanes : (half + 1) * vector.lanes]
            place = vector.at(pointer, index(half * vector.lanes))
            vector.store_masked(vector.shuffle(value[0], value[1], some), place, mask)

    def _halves(self, left: Any) -> tuple[Any, Any]:
        """Return the masks of the real numbers that `left` complex ones are."""
        numbers = self.builder.mul(left, index(2))
        behind = self.builder.sub(numbers, index(self.vector.lanes))
        return self.vector.first(numbers), self.vector.first(behind)

    def behind(self, pointer: Any, left: Any) -> tuple[Any, Any]:
        """Return where the second block of planes begins, and how many planes it has."""
        lanes = self.vector.lanes
        return self.vector.at(pointer, index(2 * lanes)), self.builder.sub(left, index(lanes))


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def butterfly(typingctx, radix, base, distance, factors, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform `radix` points in place, `distance` bytes apart: one step of a transform.

    With radix 4 the results 1, 2 and 3 are multiplied by the three complex `factors`.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        write = Lanes(builder, bits.literal_value, lanes.literal_value)
        factors = write.pointer(arguments[3])
        write.butterfly(radix.literal_value, arguments[1], arguments[2], factors)
        return context.get_dummy_value()

    return types.void(radix, *(types.int64,) * 3, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def read_planes(typingctx, points, part, step, tables, row, i, j, bits, lanes):  # type: ignore[no-untyped-def]
    """Do ``points[l * step, part, plane] = planes[plane][i, j + l]`` for `lanes` l and planes.

    `points` is the address of the first point, `tables` that of the planes' integers, `row` the
    elements from row to row. What does not exist is zero. Points beyond the last column that any
    plane has are written too.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        points, part, step, tables, row, i, j = arguments[:7]
        write = Lanes(builder, bits.literal_value, lanes.literal_value)
        vector, size = write.vector, bits.literal_value // 8
        rows = []
        for lane in range(vector.lanes):
            table = builder.add(tables, index(8 * READ_FIELDS * lane))
            base, top, bottom, left, right = (write.number(table, n) for n in range(READ_FIELDS))
            there = builder.and_(
                builder.icmp_signed(">=", i, top), builder.icmp_signed("<", i, bottom)
            )
            width = builder.select(there, builder.sub(right, left), index(0))
            mask = vector.within(builder.sub(j, left), width)
            distance = builder.add(builder.mul(i, row), j)
            place = builder.add(base, builder.mul(distance, index(size)))
            rows.append(vector.load_masked(write.pointer(place), mask))
        first = builder.mul(part, index(vector.lanes))
        for number, column in enumerate(vector.transpose(rows)):
            point = write.point(points, builder.mul(step, index(number)))
            vector.store(column, vector.at(point, first))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def write_planes(  # type: ignore[no-untyped-def]
    typingctx, points, part, places, tables, row, i, j, left, scale, bias, bits, lanes
):
    """Do ``planes[plane][i, j + l] = points[places[l], part, plane] * scale + bias[plane]``.

    For `lanes` l and planes, of which `left` exist; as `read_planes` otherwise. `places` is the
    address of bytes from the first point, `scale` that of one element.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        points, part, places, tables, row, i, j, left, scale, bias = arguments[:10]
        write = Lanes(builder, bits.literal_value, lanes.literal_value)
        vector, size = write.vector, bits.literal_value // 8
        first = builder.mul(part, index(vector.lanes))
        factor = vector.broadcast(builder.load(write.pointer(scale)))
        offset = vector.load_masked(write.pointer(bias), vector.first(left))
        columns = []
        for number in range(vector.lanes):
            point = write.pointer(builder.add(points, write.number(places, number)))
            value = vector.load(vector.at(point, first))
            columns.append(vector.multiply_add(value, factor, offset))
        distance = builder.mul(builder.add(builder.mul(i, row), j), index(size))
        for lane, line in enumerate(vector.transpose(columns)):
            table = builder.add(tables, index(8 * WRITTEN_FIELDS * lane))
            base, rows, width = (write.number(table, n) for n in range(WRITTEN_FIELDS))
            there = builder.icmp_signed("<", i, rows)
            count = builder.select(there, builder.sub(width, j), index(0))
            place = write.pointer(builder.add(base, distance))
            vector.store_masked(line, place, vector.first(count))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 10, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def take_apart(typingctx, here, opposite, target, left, bits, lanes):  # type: ignore[no-untyped-def]
    """Write the spectra of both blocks of planes at one frequency, twice as large.

    `here` and `opposite` are the addresses of the points of this frequency and of its negative,
    `target` where complex numbers go; `left` planes exist.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        here, opposite, target, left = arguments[:4]
        write = Lanes(builder, bits.literal_value, lanes.literal_value)
        (a, b), (c, d) = (write.load(write.pointer(place)) for place in (here, opposite))
        # z = p + i q with real planes p and q: 2 p = z(f) + z(-f)*, 2 q = (z(f) - z(-f)*) / i.
        first = builder.fadd(a, c), builder.fsub(b, d)
        second = builder.fadd(b, d), builder.fsub(c, a)
        pointer = write.pointer(target)
        write.store_complex(first, pointer, left)
        write.store_complex(second, *write.behind(pointer, left))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def put_together(typingctx, here, opposite, source, left, bits, lanes):  # type: ignore[no-untyped-def]
    """Undo `take_apart`, but for the factor of two.

    Points are written with their parts exchanged: the transform of those is the inverse
    transform, its parts exchanged.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        here, opposite, source, left = arguments[:4]
        write = Lanes(builder, bits.literal_value, lanes.literal_value)
        pointer = write.pointer(source)
        a, b = write.load_complex(pointer, left)
        c, d = write.load_complex(*write.behind(pointer, left))
        # z(f) = p + i q, and z(-f) = p* + i q*.
        write.store((builder.fadd(b, c), builder.fsub(a, d)), write.pointer(here))
        write.store((builder.fsub(c, b), builder.fadd(a, d)), write.pointer(opposite))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, bits, lanes), generate
