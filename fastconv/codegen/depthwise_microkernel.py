"""The depthwise microkernel: one output channel, its taps unrolled, input rows reused.

With one input channel per output channel there are few products, so memory traffic dominates.
Nothing is copied: masked loads give zero for padding columns, and padding rows are skipped.
Output rows of a tile read overlapping input rows: each input vector is loaded once and multiplied
into every output row that uses it.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, NamedTuple

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.epilogue_max_pool import store_maxima
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.vector import updated_if


class DepthwiseShape(NamedTuple):
    """The compile-time parameters of a `DepthwiseMicrokernel`: taps, stride and the tile.

    With `odd`, even output columns have R x S taps and odd ones R x `odd`. If `pooled`, maxima over
    2 x 2 windows are stored.
    """

    R: int
    S: int
    stride: tuple[int, int]
    rows: int
    vectors: int
    bits: int
    lanes: int
    odd: int | None = None
    pooled: bool = False

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        down, across = self.stride
        tile = f"{self.rows}x{self.vectors * self.lanes}"
        odd = "" if self.odd is None else f"+{self.odd}"
        pooled = "-pooled" if self.pooled else ""
        taps = f"{self.R}x{self.S}{odd}-s{down}x{across}"
        return f"depthwise-{NUMBER_TYPES[self.bits].name}x{self.lanes}-{tile}-{taps}{pooled}"


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

    def __init__(self, builder: Any, shape: DepthwiseShape, v: Any) -> None:
        super().__init__(builder, shape.bits, shape.lanes, v)
        self.shape = shape
        self.x, self.weight = self.operands("x", "weight")
        (self.bias,) = self.accumulators("bias")
        self.epilogue = Epilogue(self.vector, v.out, v.residual, v.numbers, v.form, v.out_row, 0)

    def emit(self) -> None:
        """Emit the microkernel."""
        vector, shape, epilogue = self.vector, self.shape, self.epilogue
        sums = self._sums(shape.S, self.v.left, 0)
        if shape.pooled:
            ready = epilogue.activated(epilogue.scaled([*sums.values()], len(sums)))
            of = dict(zip(sums, ready, strict=True))
            store_maxima(vector, of, epilogue.out, epilogue.out_row, self.v.columns)
            return
        positions, every = list(sums), list(sums.values())
        if shape.odd is not None:
            others = self._sums(shape.odd, self.v.left_odd, shape.R * shape.S)
            every = [v for p in positions for v in vector.interleave([sums[p], others[p]])]
            positions = [(i, v) for i in range(shape.rows) for v in range(2 * shape.vectors)]
        columns = len(positions) // shape.rows * vector.lanes
        epilogue.rows(every, positions, columns, 1, self.v.columns)

    def _sums(self, S: int, left: Any, begin: int) -> dict[tuple[int, int], Any]:
        """Return the sums by row and vector, for a filter of R x `S` taps from tap `begin` on."""
        builder, vector, operand = self.builder, self.vector, self.operand
        shape, R, down = self.shape, self.shape.R, self.shape.stride[0]
        rows, vectors = shape.rows, shape.vectors
        positions = [(i, v) for i in range(rows) for v in range(vectors)]
        sums = dict.fromkeys(positions, vector.broadcast(builder.load(self.bias)))
        weights = [
            operand.broadcast(builder.load(operand.at(self.weight, begin + tap)))
            for tap in range(R * S)
        ]
        masks = self._masks(S, left)

        def with_row(h: Any, seen: list[tuple[int, int]]) -> list[Any]:
            row, new = h * self.v.width, dict(sums)
            for v in range(vectors):
                pixels = self._pixels(row, S, v, left, masks)
                for (i, r), s in product(seen, range(S)):
                    new[i, v] = operand.dot(weights[r * S + s], pixels[s], new[i, v])
            return [new[i, v] for i, _ in seen for v in range(vectors)]

        for number in range((rows - 1) * down + R):
            # This input row is tap r of output row i.
            taps = [(i, number - i * down) for i in range(rows)]
            seen = [(i, r) for i, r in taps if 0 <= r < R]
            positions = [(i, v) for i, _ in seen for v in range(vectors)]
            h, old = self.v.top + number, [sums[position] for position in positions]
            inside = builder.icmp_unsigned("<", h.value, self.v.height.value)
            new = updated_if(builder, inside, old, partial(with_row, h, seen))
            sums.update(zip(positions, new, strict=True))
        return sums

    def _masks(self, S: int, left: Any) -> dict[int, Any]:
        """Return the load masks for `_pixels`, by first column."""
        return {
            column: self.operand.within(left + column, self.v.width)
            for v in range(self.shape.vectors)
            for s in range(S)
            for column in self._columns(s, v)
        }

    def _columns(self, s: int, v: int) -> list[int]:
        """Return the first columns, relative to `left`, of the vectors that tap `s` reads."""
        stride, lanes = self.shape.stride[1], self.operand.lanes
        first = v * lanes * stride + s // stride * stride
        return [first + part * lanes for part in range(stride)]

    def _pixels(self, row: Any, S: int, v: int, left: Any, masks: dict[int, Any]) -> list[Any]:
        """Return the input vector of each tap of a row, deinterleaved at stride 2."""
        operand = self.operand
        loaded: dict[int, Any] = {}
        pixels = []
        for s in range(S):
            columns = self._columns(s, v)
            for column in columns:
                if column not in loaded:
                    source = operand.at(self.x, row + (left + column))
                    loaded[column] = operand.load(source, masks[column])
            parts = [loaded[column] for column in columns]
            if len(parts) == 1:
                pixels.append(parts[0])
            else:
                picks = range(s % 2, 2 * operand.lanes, 2)
                pixels.append(operand.shuffle(parts[0], parts[1], picks))
        return pixels
