"""The depthwise microkernel: one output channel, its taps unrolled, input rows reused.

With one input channel per output channel there are few products, so memory traffic dominates.
Nothing is copied: masked loads give zero for padding columns, and padding rows are skipped.
Output rows of a tile read overlapping input rows: each input vector is loaded once and multiplied
into every output row that uses it.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.epilogue_max_pool import store_maxima
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.vector import updated_if


class DepthwiseMicrokernel(Microkernel):
    """Computes `rows` rows of ``vectors * lanes`` pixels of one channel, with R x S taps.

    `stride` is (vertical, horizontal), the latter 1 or 2. The kernel is not dilated.

    For an input gradient at stride 2, two filters read the same plane and give the even and the odd
    columns of one output.

    With 2 x 2 max pooling, the tile has an even number of rows, and of vectors too, or one vector;
    `out_row` is then the row stride of the maxima, and there is no residual.

    Its arguments: addresses of the channel's plane, `x`, of its weights and bias, and of the tile's
    corner in the output and in the residual (or 0); the activation's parameters and form, `numbers`
    and `form`; the size of the plane; the input row and column of the first tap of the first pixel,
    `top` and `left`; that column for the second filter, `left_odd`; the row stride of the output;
    and the `columns` that remain.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any) -> None:
        super().__init__(builder, bits, lanes, v)
        self.x, self.weight = self.operands("x", "weight")
        (self.bias,) = self.accumulators("bias")
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
        """Emit the microkernel; with `odd` also the odd columns, from R x `odd` taps."""
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
        """Emit the microkernel that stores maxima over 2 x 2 windows."""
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
        second: int | None = None,
    ) -> dict[tuple[int, int], Any]:
        """Return the sums by row and vector; a second filter begins with tap number `second`.

        That number may be 0: the first filter of a pair may have no taps.
        """
        builder, vector, operand = self.builder, self.vector, self.operand
        left = self.v.left if second is None else self.v.left_odd
        positions = [(i, v) for i in range(rows) for v in range(vectors)]
        sums = dict.fromkeys(positions, vector.broadcast(builder.load(self.bias)))
        weights = [
            operand.broadcast(builder.load(operand.at(self.weight, (second or 0) + tap)))
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
            # This input row is tap r of output row i.
            taps = [(i, number - i * stride[0]) for i in range(rows)]
            seen = [(i, r) for i, r in taps if 0 <= r < R]
            positions = [(i, v) for i, _ in seen for v in range(vectors)]
            h, old = self.v.top + number, [sums[position] for position in positions]
            inside = builder.icmp_unsigned("<", h.value, self.v.height.value)
            new = updated_if(builder, inside, old, partial(with_row, h, seen))
            sums.update(zip(positions, new, strict=True))
        return sums

    def _masks(self, S: int, stride: int, vectors: int, left: Any) -> dict[int, Any]:
        """Return the load masks for `_pixels`, by first column."""
        return {
            column: self.operand.within(left + column, self.v.width)
            for v in range(vectors)
            for s in range(S)
            for column in self._columns(s, stride, v)
        }

    def _columns(self, s: int, stride: int, v: int) -> list[int]:
        """Return the first columns, relative to `left`, of the vectors that tap `s` reads."""
        first = v * self.operand.lanes * stride + s // stride * stride
        return [first + part * self.operand.lanes for part in range(stride)]

    def _pixels(
        self, row: Any, S: int, stride: int, v: int, left: Any, masks: dict[int, Any]
    ) -> list[Any]:
        """Return the input vector of each tap of a row, deinterleaved at stride 2."""
        operand = self.operand
        loaded: dict[int, Any] = {}
        pixels = []
        for s in range(S):
            columns = self._columns(s, stride, v)
            for column in columns:
                if column not in loaded:
                    source = operand.at(self.x, row + (left + column))
                    loaded[column] = operand.load(source, masks[column])
            parts = [loaded[column] for column in columns]
            if stride == 1:
                pixels.append(parts[0])
            else:
                picks = range(s % 2, 2 * operand.lanes, 2)
                pixels.append(operand.shuffle(parts[0], parts[1], picks))
        return pixels
