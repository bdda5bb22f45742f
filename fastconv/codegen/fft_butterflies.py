"""FFTs of many planes at once: each lane of a vector holds its own plane.

A point is a vector of real parts, followed by a vector of imaginary parts. Two blocks of real
planes form one block of complex planes: the first is the real part, the second the imaginary part.
Lanes are shuffled only where planes are read and written.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer, counted, integer_at, pointer_to
from fastconv.codegen.vector import index, vectors

#: Number of integers that describe an input plane: the address of its first element (which may lie
#: outside the image), and the bounds [top, bottom) and [left, right) of the rows and columns
#: inside.
READ_FIELDS = 5
#: The same for an output plane: the address of its first element, its rows and its columns.
WRITTEN_FIELDS = 3

Point = tuple[Any, Any]


class Planes:
    """Emits the steps of the transforms; addresses are `Integer`."""

    def __init__(self, builder: Any, bits: int, lanes: int) -> None:
        self.builder, self.size, self.vector = builder, bits // 8, vectors(builder, bits, lanes)
        self.point_bytes = 2 * lanes * self.size

    def clear(self, points: Integer, elements: Integer) -> None:
        """Set elements to zero, in whole vectors."""
        with counted(self.builder, 0, elements, self.vector.lanes) as element:
            self.vector.store(self.vector.zero, pointer_to(self.vector, points, element))

    # Points ----------------------------------------------------------------------------------

    def _load(self, address: Integer) -> Point:
        """Load a point."""
        vector, pointer = self.vector, pointer_to(self.vector, address)
        return vector.load(pointer), vector.load(vector.at(pointer, index(vector.lanes)))

    def _store(self, value: Point, address: Integer) -> None:
        """Store a point."""
        vector, pointer = self.vector, pointer_to(self.vector, address)
        vector.store(value[0], pointer)
        vector.store(value[1], vector.at(pointer, index(vector.lanes)))

    def _add(self, a: Point, b: Point) -> Point:
        return self.builder.fadd(a[0], b[0]), self.builder.fadd(a[1], b[1])

    def _subtract(self, a: Point, b: Point) -> Point:
        return self.builder.fsub(a[0], b[0]), self.builder.fsub(a[1], b[1])

    def _times(self, a: Point, factors: Integer, number: int) -> Point:
        """Return ``a`` times complex number `number` of the twiddle factors."""
        vector, builder = self.vector, self.builder
        real, imaginary = (
            vector.broadcast(builder.load(pointer_to(vector, factors, 2 * number + part)))
            for part in (0, 1)
        )
        negative = builder.fneg(builder.fmul(a[1], imaginary))
        crossed = builder.fmul(a[0], imaginary)
        return (
            vector.multiply_add(a[0], real, negative),
            vector.multiply_add(a[1], real, crossed),
        )

    def butterfly(self, radix: int, base: Integer, distance: Integer, factors: Integer) -> None:
        """Compute a radix-2 or radix-4 butterfly in place, on points `distance` bytes apart.

        With radix 4 results 1, 2 and 3 are multiplied by the three twiddle `factors`.
        """
        addresses = [base + distance * number for number in range(radix)]
        points = [self._load(address) for address in addresses]
        if radix == 2:
            results = [self._add(*points), self._subtract(*points)]
        else:
            a, b, c, d = points
            even, odd = self._add(a, c), self._add(b, d)
            real, crossed = self._subtract(a, c), self._subtract(b, d)
            rotated = crossed[1], self.builder.fneg(crossed[0])  # times -i
            results = [
                self._add(even, odd),
                self._times(self._add(real, rotated), factors, 0),
                self._times(self._subtract(even, odd), factors, 1),
                self._times(self._subtract(real, rotated), factors, 2),
            ]
        for result, address in zip(results, addresses, strict=True):
            self._store(result, address)

    # Images ----------------------------------------------------------------------------------

    def read(
        self, points: Integer, step: Integer, tables: Integer, row: Integer, i: Integer, j: Integer
    ) -> None:
        """Emit ``points[l * step, plane] = planes[plane][i, j + l]`` for `lanes` l and planes.

        `points` is the address of one part of the first point, `tables` that of the planes'
        descriptions (`READ_FIELDS`), `row` the row stride in elements. Elements outside are zero.
        Points beyond the last column of all planes are written too.
        """
        builder, vector = self.builder, self.vector
        rows = []
        for lane in range(vector.lanes):
            table = tables + 8 * READ_FIELDS * lane
            base, top, bottom, left, right = (
                integer_at(builder, table, n) for n in range(READ_FIELDS)
            )
            exists = builder.and_(i.compare(">=", top), i.compare("<", bottom))
            width = i.choose(exists, right - left, 0)
            mask = vector.within((j - left).value, width.value)
            address = base + (i * row + j) * self.size
            rows.append(vector.load(pointer_to(vector, address), mask))
        for number, column in enumerate(vector.transpose(rows)):
            point = points + step * number * self.point_bytes
            vector.store(column, pointer_to(vector, point))

    def write(
        self,
        points: Integer,
        offsets: Integer,
        tables: Integer,
        row: Integer,
        element: tuple[Integer, Integer],
        left: Integer,
        scale: Integer,
        bias: Integer,
    ) -> None:
        """Emit ``planes[plane][i, j + l] = points[offsets[l], plane] * scale + bias[plane]``.

        Here ``i, j = element``; `left` planes exist. `offsets` is the address of byte offsets from
        the first point, `scale` that of one element; otherwise as in `read`.
        """
        builder, vector, (i, j) = self.builder, self.vector, element
        factor = vector.broadcast(builder.load(pointer_to(vector, scale)))
        added = vector.load(pointer_to(vector, bias), vector.first(left.value))
        columns = []
        for number in range(vector.lanes):
            point = points + integer_at(builder, offsets, number)
            value = vector.load(pointer_to(vector, point))
            columns.append(vector.multiply_add(value, factor, added))
        for lane, line in enumerate(vector.transpose(columns)):
            table = tables + 8 * WRITTEN_FIELDS * lane
            base, rows, width = (integer_at(builder, table, n) for n in range(WRITTEN_FIELDS))
            count = i.choose(i.compare("<", rows), width - j, 0)
            address = base + (i * row + j) * self.size
            vector.store(line, pointer_to(vector, address), vector.first(count.value))

    # Spectra ---------------------------------------------------------------------------------

    def separate(self, here: Integer, opposite: Integer, target: Integer, left: Integer) -> None:
        """Store the spectra of both blocks of planes at one frequency, scaled by two.

        `here` and `opposite` are the addresses of the points of this frequency and of its negative,
        `target` that of the complex results; `left` planes exist.
        """
        builder = self.builder
        (a, b), (c, d) = self._load(here), self._load(opposite)
        # z = p + i q with real planes p and q: 2 p = z(f) + z(-f)*, 2 q = (z(f) - z(-f)*) / i.
        self._store_complex((builder.fadd(a, c), builder.fsub(b, d)), target, left)
        second = builder.fadd(b, d), builder.fsub(c, a)
        self._store_complex(second, *self._second_block(target, left))

    def combine(self, here: Integer, opposite: Integer, source: Integer, left: Integer) -> None:
        """Invert `separate`, except for the factor of two.

        Points are stored with real and imaginary parts exchanged: the forward transform of these is
        the inverse transform with its parts exchanged.
        """
        builder = self.builder
        a, b = self._load_complex(source, left)
        c, d = self._load_complex(*self._second_block(source, left))
        # z(f) = p + i q, and z(-f) = p* + i q*.
        self._store((builder.fadd(b, c), builder.fsub(a, d)), here)
        self._store((builder.fsub(c, b), builder.fadd(a, d)), opposite)

    def _second_block(self, address: Integer, left: Integer) -> tuple[Integer, Integer]:
        """Return the address of the second block's complex numbers, and how many planes it has."""
        return address + self.point_bytes, left - self.vector.lanes

    def _load_complex(self, address: Integer, left: Integer) -> Point:
        """Load the first `left` of a vector of complex numbers, zero-padded."""
        vector = self.vector
        low, high = (
            vector.load(pointer_to(vector, address, half * vector.lanes), mask)
            for half, mask in enumerate(self._halves(left))
        )
        real, imaginary = (
            vector.shuffle(low, high, range(part, 2 * vector.lanes, 2)) for part in (0, 1)
        )
        return real, imaginary

    def _store_complex(self, value: Point, address: Integer, left: Integer) -> None:
        """Store the first `left` of a vector of complex numbers."""
        vector = self.vector
        picks = [i // 2 + i % 2 * vector.lanes for i in range(2 * vector.lanes)]
        for half, mask in enumerate(self._halves(left)):
            some = picks[half * vector.lanes : (half + 1) * vector.lanes]
            pointer = pointer_to(vector, address, half * vector.lanes)
            vector.store(vector.shuffle(value[0], value[1], some), pointer, mask)

    def _halves(self, left: Integer) -> tuple[Any, Any]:
        """Return the masks of `left` complex numbers, two vectors of real numbers."""
        numbers = left * 2
        return (
            self.vector.first(numbers.value),
            self.vector.first((numbers - self.vector.lanes).value),
        )
