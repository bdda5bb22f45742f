"""The register tile with filters in the lanes: a few pixels times a few vectors of filters.

Each tap loads its filters' weights as vectors, broadcasts one input element a pixel, multiplies
and adds. Pixels may lie anywhere, so every stride is as good as another, and a tile of 7 pixels
wastes nothing on a map 7 pixels wide. The output keeps the pixels of one channel together,
however, so the sums are transposed in registers before they are stored: this layout is for sums
over many taps.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import Tile
from fastconv.codegen.vector import index


class FilterLanes(Tile):
    """``rows * columns`` pixels times ``vectors * lanes`` filters.

    `step` is the distance of neighbouring pixels in the input as a constant, which saves address
    arithmetic, or 0: then it is read from the layer's numbers.
    """

    def emit(self, rows: int, columns: int, vectors: int, step: int) -> None:
        """Write the whole tile."""
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        bias = [
            vector.load_masked(
                vector.at(self.bias, index(v * lanes)),
                vector.first(builder.sub(self.filters, index(v * lanes))),
            )
            for v in range(vectors)
        ]
        along = range(columns)
        steps = [index(j * step) if step else builder.mul(self.x_step, index(j)) for j in along]
        down = [builder.mul(self.x_row, index(i)) for i in range(rows)]

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            place = vector.at(self.weight, builder.mul(tap, index(vectors * lanes)))
            weights = [vector.load(vector.at(place, index(v * lanes))) for v in range(vectors)]
            for row in down:
                self.fetch_ahead(vector.at(corner, row), columns * max(step, 1))
            updated = []
            for pixel in range(rows * columns):
                i, j = divmod(pixel, columns)
                value = vector.broadcast(builder.load(vector.at(corner, down[i], steps[j])))
                for v in range(vectors):
                    total = sums[pixel * vectors + v]
                    updated.append(vector.multiply_add(value, weights[v], total))
            return updated

        sums = self.over_taps(bias * (rows * columns), body)
        self._store(sums, rows, columns, vectors)

    def _store(self, sums: list[Any], rows: int, columns: int, vectors: int) -> None:
        """Transpose blocks of up to `lanes` neighbouring pixels; then a row is as in memory."""
        vector, lanes = self.vector, self.vector.lanes
        places = [(i, v) for i in range(rows) for v in range(-(-columns // lanes))]
        blocks = []
        for i, block in places:
            first, count = i * columns + block * lanes, min(lanes, columns - block * lanes)
            for v in range(vectors):
                pixels = [sums[(first + p) * vectors + v] for p in range(count)]
                blocks.append(vector.transpose(pixels + [vector.undefined] * (lanes - count)))
        ordered = [
            blocks[place * vectors + v][k]
            for v in range(vectors)
            for k in range(lanes)
            for place in range(len(places))
        ]
        width = -(-columns // lanes) * lanes
        self.store.rows(ordered, places, width, self.filters, index(columns))
