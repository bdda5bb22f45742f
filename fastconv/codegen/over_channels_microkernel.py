"""The microkernel vectorized over output channels: a few pixels times a few vectors of channels.

Each tap loads vectors of weights, broadcasts one input element per pixel, multiplies and adds.
Pixels may lie anywhere, so any stride is equally fast, and a tile of 7 pixels wastes nothing on a
map 7 pixels wide. The output is NCHW, so the sums are transposed in registers before the store:
this suits sums over many taps.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import ConvMicrokernel


class OverChannels(ConvMicrokernel):
    """Computes ``rows * columns`` pixels times ``vectors * lanes`` output channels.

    `step` is the column stride in the input as a constant, which saves address arithmetic, or 0:
    then it is read from the layer's parameters.
    """

    def emit(self, rows: int, columns: int, vectors: int, step: int) -> None:
        """Emit the microkernel."""
        builder, vector, operand, lanes = self.builder, self.vector, self.operand, self.vector.lanes
        bias = [
            vector.load(vector.at(self.bias, v * lanes), vector.first(self.v.filters - v * lanes))
            for v in range(vectors)
        ]
        steps = [j * step if step else self.layer.x_step * j for j in range(columns)]
        down = [self.layer.x_row * i for i in range(rows)]

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            first = operand.at(self.weight, tap * (vectors * lanes))
            weights = [operand.load(operand.at(first, v * lanes)) for v in range(vectors)]
            for row in down:
                self.prefetch_next(operand.at(corner, row), columns * max(step, 1))
            updated = []
            for pixel in range(rows * columns):
                i, j = divmod(pixel, columns)
                value = operand.broadcast(builder.load(operand.at(corner, down[i], steps[j])))
                for v in range(vectors):
                    total = sums[pixel * vectors + v]
                    updated.append(operand.dot(value, weights[v], total))
            return updated

        sums = self.over_taps(bias * (rows * columns), body)
        self._store(sums, rows, columns, vectors)

    def _store(self, sums: list[Any], rows: int, columns: int, vectors: int) -> None:
        """Transpose blocks of up to `lanes` pixels to channel-major order, and store them."""
        vector, lanes = self.vector, self.vector.lanes
        positions = [(i, v) for i in range(rows) for v in range(-(-columns // lanes))]
        blocks = []
        for i, block in positions:
            first, count = i * columns + block * lanes, min(lanes, columns - block * lanes)
            for v in range(vectors):
                pixels = [sums[(first + p) * vectors + v] for p in range(count)]
                blocks.append(vector.transpose(pixels + [vector.undefined] * (lanes - count)))
        ordered = [
            blocks[number * vectors + v][k]
            for v in range(vectors)
            for k in range(lanes)
            for number in range(len(positions))
        ]
        width = -(-columns // lanes) * lanes
        self.epilogue.rows(ordered, positions, width, self.v.filters, columns)
