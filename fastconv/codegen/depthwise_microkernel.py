"""The register tile of depthwise convolution: one filter, its taps unrolled, rows used again.

With a single input channel a filter there are so few products that moving data is what takes
the time. So nothing is copied: margins are lanes that masked loads leave at zero, and rows that
are skipped. Rows of the tile overlap in what they read: each vector of input is loaded once and
multiplied into all the output rows that see it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.codegen.epilogue import Store
from fastconv.codegen.epilogue_max_pool import activated, store_largest
from fastconv.codegen.vector import Vectors, index

#: What the tile is called with, as 64-bit integers: addresses of the channel's plane and of its
#: filter, its bias and the tile's corner in the output and in the residual (or 0), the numbers
#: of the activation and its form, the size of the plane, the row and column of the input that
#: the first tap of the first pixel reads, the column for the second filter, elements from row to
#: row of the output, and the columns left.
ARGUMENTS = (
    *("x", "weight", "bias", "out", "residual", "numbers", "form"),
    *("height", "width", "top", "left", "left_odd", "out_row", "columns"),
)


class Depthwise:
    """One filter of `R` x `S` taps times `rows` rows of ``vectors * lanes`` pixels.

    `stride` is (vertical, horizontal), the latter 1 or 2. The kernel is not dilated.

    Or two filters that read the same plane, whose outputs are the even and the odd columns of one
    output: what makes a gradient at stride 2.

    Or the maxima of 2 x 2 squares, of an even number of rows and of vectors, or of one vector:
    `out_row` is then that of the maxima, and there is no residual.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.x, self.weight, self.bias = (
            builder.inttoptr(arguments[name], element.as_pointer())
            for name in ("x", "weight", "bias")
        )
        self.height, self.width, self.top, self.left, self.left_odd, self.columns = (
            arguments[name] for name in ("height", "width", "top", "left", "left_odd", "columns")
        )
        out, residual, numbers, form, out_row = (
            arguments[name] for name in ("out", "residual", "numbers", "form", "out_row")
        )
        self.out, self.form, self.out_row = out, form, out_row
        self.numbers = builder.inttoptr(numbers, element.as_pointer())
        self.store = Store(self.vector, out, residual, numbers, form, out_row, index(0))

    def emit(
        self,
        R: int,
        S: int,
        stride: tuple[int, int],
        rows: int,
        vectors: int,
        odd: int | None = None,
    ) -> None:
        """Write the whole tile; with `odd` also that of the odd columns, of R x `odd` taps."""
        vector = self.vector
        places = [(i, v) for i in range(rows) for v in range(vectors)]
        sums = self._sums(R, S, stride, rows, vectors, self.left, 0)
        every = [sums[place] for place in places]
        if odd is not None:
            others = self._sums(R, odd, stride, rows, vectors, self.left_odd, R * S)
            every = [v for p in places for v in vector.interleave([sums[p], others[p]])]
            places = [(i, v) for i in range(rows) for v in range(2 * vectors)]
        columns = len(places) // rows * vector.lanes
        self.store.rows(every, places, columns, index(1), self.columns)

    def emit_pooled(self, R: int, S: int, stride: tuple[int, int], rows: int, vectors: int) -> None:
        """Write the tile that stores maxima of squares."""
        vector = self.vector
        sums = self._sums(R, S, stride, rows, vectors, self.left, 0)
        ready = activated(vector, sums.values(), self.numbers, self.form)
        out = self.builder.inttoptr(self.out, vector.element.as_pointer())
        rows_of = dict(zip(sums, ready, strict=True))
        store_largest(vector, rows_of, out, self.out_row, self.columns)

    def _sums(
        self,
        R: int,
        S: int,
        stride: tuple[int, int],
        rows: int,
        vectors: int,
        left: Any,
        first_tap: int,
    ) -> dict[tuple[int, int], Any]:
        """Return the sums of a filter's taps, by row and vector."""
        builder, vector = self.builder, self.vector
        places = [(i, v) for i in range(rows) for v in range(vectors)]
        sums = dict.fromkeys(places, vector.broadcast(builder.load(self.bias)))
        weights = [
            vector.broadcast(builder.load(vector.at(self.weight, index(first_tap + tap))))
            for tap in range(R * S)
        ]
        masks = self._masks(S, stride[1], vectors, left)
        for number in range((rows - 1) * stride[0] + R):
            # This row of input is tap r of output row i.
            seen = [(i, number - i * stride[0]) for i in range(rows)]
            seen = [(i, r) for i, r in seen if 0 <= r < R]
            touched = [(i, v) for i, _ in seen for v in range(vectors)]
            before, kept = builder.block, dict(sums)
            h = builder.add(self.top, index(number))
            with builder.if_then(builder.icmp_unsigned("<", h, self.height)):
                row = builder.mul(h, self.width)
                for v in range(vectors):
                    pixels = self._pixels(row, S, stride[1], v, left, masks)
                    for i, r in seen:
                        for s, values in enumerate(pixels):
                            weight = weights[r * S + s]
                            sums[i, v] = vector.multiply_add(weight, values, sums[i, v])
                inside = builder.block
            for place in touched:
                merged = builder.phi(vector.type)
                merged.add_incoming(kept[place], before)
                merged.add_incoming(sums[place], inside)
                sums[place] = merged
        return sums

    def _masks(self, S: int, stride: int, vectors: int, left: Any) -> dict[int, Any]:
        """Return the masks of the loads that `_pixels` does, by their first column."""
        return {
            column: self.vector.within(self.builder.add(left, index(column)), self.width)
            for v in range(vectors)
            for s in range(S)
            for column in self._columns(s, stride, v)
        }

    def _columns(self, s: int, stride: int, v: int) -> list[int]:
        """Return the first columns of the vectors that hold what tap `s` sees, from `left` on."""
        first = v * self.vector.lanes * stride + s // stride * stride
        return [first + part * self.vector.lanes for part in range(stride)]

    def _pixels(
        self, row: Any, S: int, stride: int, v: int, left: Any, masks: dict[int, Any]
    ) -> list[Any]:
        """Return what each tap of a row sees: of two vectors, the even or the odd elements."""
        builder, vector = self.builder, self.vector
        loaded: dict[int, Any] = {}
        pixels = []
        for s in range(S):
            columns = self._columns(s, stride, v)
            for column in columns:
                if column not in loaded:
                    place = builder.add(row, builder.add(left, index(column)))
                    place = builder.gep(self.x, [place])
                    loaded[column] = vector.load_masked(place, masks[column])
            parts = [loaded[column] for column in columns]
            if stride == 1:
                pixels.append(parts[0])
            else:
                picks = range(s % 2, 2 * vector.lanes, 2)
                pixels.append(vector.shuffle(parts[0], parts[1], picks))
        return pixels
