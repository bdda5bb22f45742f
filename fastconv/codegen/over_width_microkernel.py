"""The register tile with pixels in the lanes: a few filters times a few vectors of pixels.

Each tap loads vectors of neighbouring pixels, broadcasts one weight a filter, multiplies and
adds. Sums lie in registers as they will lie in memory, so storing costs nothing extra: this
layout is for maps with room for whole vectors, and for few taps. Neighbouring output pixels must
be neighbours in what is read.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import Tile
from fastconv.codegen.epilogue_max_pool import activated, store_largest
from fastconv.codegen.vector import index


class PixelLanes(Tile):
    """`filters` filters times `rows` rows of ``vectors * lanes`` pixels."""

    def emit(self, filters: int, rows: int, vectors: int, pooled: bool = False) -> None:
        """Write the whole tile.

        If `pooled`, the maxima of 2 x 2 squares are stored, of an even number of rows and vectors,
        or of one vector: `out_row` and `out_plane` are then theirs, and there is no residual.
        """
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        places = [(i, v) for i in range(rows) for v in range(vectors)]
        down = [builder.mul(self.x_row, index(i)) for i in range(rows)]
        last = builder.sub(self.filters, index(1))
        bias = []
        side = 2 if pooled else 1
        self.store.fetch(filters, rows // side, vectors * lanes // side)
        for k in range(filters):
            there = builder.icmp_signed("<", index(k), self.filters)
            place = builder.select(there, index(k), last)
            bias.append(vector.broadcast(builder.load(builder.gep(self.bias, [place]))))

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            weights = builder.gep(self.weight, [builder.mul(tap, index(filters))])
            pixels = [vector.load(vector.at(corner, down[i], index(v * lanes))) for i, v in places]
            for row in down:
                self.fetch_ahead(vector.at(corner, row), vectors * lanes)
            updated = []
            for k in range(filters):
                weight = vector.broadcast(builder.load(builder.gep(weights, [index(k)])))
                for p, values in enumerate(pixels):
                    total = sums[k * len(places) + p]
                    updated.append(vector.multiply_add(weight, values, total))
            return updated

        sums = self.over_taps([b for b in bias for _ in places], body)
        if not pooled:
            self.store.rows(sums, places, vectors * lanes, self.filters, self.columns)
            return
        ready = activated(vector, sums, self.numbers, self.form)
        out = builder.inttoptr(self.out, vector.element.as_pointer())
        for k in range(filters):
            own = dict(zip(places, ready[k * len(places) :], strict=False))
            with builder.if_then(builder.icmp_signed("<", index(k), self.filters)):
                plane = vector.at(out, builder.mul(self.out_plane, index(k)))
                store_largest(vector, own, plane, self.out_row, self.columns)
