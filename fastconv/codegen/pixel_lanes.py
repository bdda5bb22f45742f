"""The register tile with pixels in the lanes: a few filters times a few vectors of pixels.

Each tap loads vectors of neighbouring pixels, broadcasts one weight a filter, multiplies and
adds. Sums lie in registers as they will lie in memory, so storing costs nothing extra: this
layout is for maps with room for whole vectors, and for few taps. Neighbouring output pixels must
be neighbours in what is read.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastconv.activation import CLAMP
from fastconv.codegen.tile import Tile
from fastconv.codegen.vector import index


class PixelLanes(Tile):
    """`filters` filters times `rows` rows of ``vectors * lanes`` pixels."""

    def emit(self, filters: int, rows: int, vectors: int) -> None:
        """Write the whole tile."""
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        places = [(i, v) for i in range(rows) for v in range(vectors)]
        down = [builder.mul(self.x_row, index(i)) for i in range(rows)]
        last = builder.sub(self.filters, index(1))
        bias = []
        for k in range(filters):
            there = builder.icmp_signed("<", index(k), self.filters)
            place = builder.select(there, index(k), last)
            bias.append(vector.broadcast(builder.load(builder.gep(self.bias, [place]))))

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            weights = builder.gep(self.weight, [builder.mul(tap, index(filters))])
            pixels = [vector.load(vector.at(corner, down[i], index(v * lanes))) for i, v in places]
            updated = []
            for k in range(filters):
                weight = vector.broadcast(builder.load(builder.gep(weights, [index(k)])))
                for p, values in enumerate(pixels):
                    total = sums[k * len(places) + p]
                    updated.append(vector.multiply_add(weight, values, total))
            return updated

        sums = self.over_taps([b for b in bias for _ in places], body)
        self._store(sums, places, filters, vectors * lanes)

    def _store(
        self, sums: list[Any], places: list[tuple[int, int]], filters: int, columns: int
    ) -> None:
        """Store a whole tile straight from its registers, and part of one through memory."""
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        across = [
            builder.add(builder.mul(self.out_row, index(i)), index(v * lanes)) for i, v in places
        ]
        whole = builder.and_(
            builder.icmp_signed(">=", self.filters, index(filters)),
            builder.icmp_signed(">=", self.columns, index(columns)),
        )
        clamped = builder.icmp_signed("==", self.form, index(CLAMP))
        plain = builder.and_(whole, builder.and_(clamped, builder.not_(self.has_residual)))
        with builder.if_else(plain) as (then, otherwise):
            with then:
                for number, total in enumerate(sums):
                    k, p = divmod(number, len(places))
                    offset = builder.add(builder.mul(self.out_plane, index(k)), across[p])
                    total = vector.clamp(total, self.low, self.high)
                    vector.store(total, builder.gep(self.out, [offset]))
            with otherwise:
                kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
                for number, total in enumerate(sums):
                    builder.store(total, builder.gep(kept, [index(number)]))
                with cgutils.for_range(builder, self.filters) as loop:
                    first = builder.mul(loop.index, index(len(places)))
                    plane = builder.mul(loop.index, self.out_plane)
                    for p, (_, v) in enumerate(places):
                        total = builder.load(builder.gep(kept, [builder.add(first, index(p))]))
                        mask = vector.first(builder.sub(self.columns, index(v * lanes)))
                        self.finish(total, builder.add(plane, across[p]), mask)
