"""The microkernel of depthwise convolution: one filter, its taps unrolled, rows reused.

With a single input channel a filter there are so few products that moving data is what takes
the time. So nothing is copied: padding is lanes that masked loads leave at zero, and rows that
are skipped. Rows of the tile overlap in what they read: each vector of input is loaded once and
multiplied into all the output rows that see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.epilogue_max_pool import store_maxima
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.vector import updated_if

#: What it computes a tile from, as 64-bit integers: addresses of the channel's plane and of its
#: filter, its bias and the tile's corner in the output and in the residual (or 0), the numbers
#: of the activation and its form, the size of the plane, the row and column of the input that
#: the first tap of the first pixel reads, the column for the second filter, elements from row to
#: row of the output, and the columns left.
ARGUMENTS = (
    *("x", "weight", "bias", "out", "residual", "numbers", "form"),
    *("height", "width", "top", "left", "left_odd", "out_row", "columns"),
)


class DepthwiseMicrokernel(Microkernel):
    """One filter of `R` x `S` taps times `rows` rows of ``vectors * lanes`` pixels.

    `stride` is (vertical, horizontal), the latter 1 or 2. The kernel is not dilated.

    Or two filters that read the same plane, whose outputs are the even and the odd columns of one
    output: an input gradient at stride 2.

    Or maxima over 2 x 2 windows, of an even number of rows and of vectors, or of one vector:
    `out_row` is then that of the maxima, and there is no residual.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: Mapping[str, Any]) -> None:
        super().__init__(builder, bits, lanes, arguments)
        self.x, self.weight = self.operands("x", "weight")
        (self.bias,) = self.accumulators("bias")
        v = self.v
        self.epilogue = Epilogue(self.vector, v.out, v.residual, v.numbers, v.form, v.out_row, 0)

    def emit(
        self,
        R: int,
        S: int,
        stride: tuple[int, int],
        rows: int,
        vectors: int,
        odd: int | None = None,
    ) -> None:
        """Write the whole microkernel; with `odd` also the odd columns, of R x `odd` taps."""
        vector = self.vector
        sums = self._sums(R, S, stride, rows, vectors)
        positions, every = list(sums), list(sums.values())
        if odd is not None:
            others = self._sums(R, odd, stride, rows, vectors, second=R * S)
            every = [v for p in positions for v in vector.interleave([sums[p], others[p]])]
            positions = [(i, v) for i in range(rows) for v in range(2 * vectors)]
        columns = len(positions) // rows * vector.lanes
        self.epilogue.rows(every, positions, columns, 1, self.v.columns)

    def emit_pooled(self, R: int, S: int, stride: tuple[int, int], rows: int, vectors: int) -> None:
        """Write the microkernel that stores maxima over 2 x 2 windows."""
        sums, epilogue = self._sums(R, S, stride, rows, vectors), self.epilogue
        ready = epilogue.activated(epilogue.scaled([*sums.values()], len(sums)))
        of = dict(zip(sums, ready, strict=True))
        store_maxima(self.vector, of, epilogue.out, epilogue.out_row, self.v.columns)

    def _sums(
        self,
        R: int,
        S: int,
        stride: tuple[int, int],
        rows: int,
        vectors: int,
        second: int = 0,
    ) -> dict[tuple[int, int], Any]:
        """Return the sums of a filter's taps, by row and vector.

        The second filter begins with tap number `second`.
        """
        builder, vector, operand = self.builder, self.vector, self.operand
        left = self.v.left_odd if second else self.v.left
        positions = [(i, v) for i in range(rows) for v in range(vectors)]
        sums = dict.fromkeys(positions, vector.broadcast(builder.load(self.bias)))
        weights = [
            operand.broadcast(builder.load(operand.at(self.weight, second + tap)))
            for tap in range(R * S)
        ]
        masks = self._masks(S, stride[1], vectors, left)

        def with_row(h: Any, seen: list[tuple[int, int]]) -> list[Any]:
            row, new = h * self.v.width, dict(sums)
            for v in range(vectors):
                pixels = self._pixels(row, S, stride[1], v, left, masks)
                for (i, r), s in product(seen, range(S)):
                    new[i, v] = operand.dot(weights[r * S + s], pixels[s], new[i, v])
            return [new[i, v] for i, _ in seen for v in range(vectors)]

        for number in range((rows - 1) * stride[0] + R):
            # This row of input is tap r of output row i.
            taps = [(i, number - i * stride[0]) for i in range(rows)]
            seen = [(i, r) for i, r in taps if 0 <= r < R]
            positions = [(i, v) for i, _ in seen for v in range(vectors)]
            h, old = self.v.top + number, [sums[position] for position in positions]
            inside = builder.icmp_unsigned("<", h.value, self.v.height.value)
            new = updated_if(builder, inside, old, partial(with_row, h, seen))
            sums.update(zip(positions, new, strict=True))
        return sums

    def _masks(self, S: int, stride: int, vectors: int, left: Any) -> dict[int, Any]:
        """Return the masks of the loads that `_pixels` does, by their first column."""
        return {
            column: self.operand.within(left + column, self.v.width)
            for v in range(vectors)
            for s in range(S)
            for column in self._columns(s, stride, v)
        }

    def _columns(self, s: int, stride: int, v: int) -> list[int]:
        """Return the first columns of the vectors that hold what tap `s` sees, from `left` on."""
        first = v * self.operand.lanes * stride + s // stride * stride
        return [first + part * self.operand.lanes for part in range(stride)]

    def _pixels(
        self, row: Any, S: int, stride: int, v: int, left: Any, masks: dict[int, Any]
    ) -> list[Any]:
        """Return what each tap of a row sees: of two vectors, the even or the odd elements."""
        operand = self.operand
        loaded: dict[int, Any] = {}
        pixels = []
        for s in range(S):
            columns = self._columns(s, stride, v)
            for column in columns:
                if column not in loaded:
                    source = operand.at(self.x, row + (left + column))
                    loaded[column] = operand.load_masked(source, masks[column])
            parts = [loaded[column] for column in columns]
            if stride == 1:
                pixels.append(parts[0])
            else:
                picks = range(s % 2, 2 * operand.lanes, 2)
                pixels.append(operand.shuffle(parts[0], parts[1], picks))
        return pixels
