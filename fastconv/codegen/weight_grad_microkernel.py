"""The register tile of weight gradients: a few taps times a few vectors of filters.

The gradient of a weight is a sum over all pixels, so pixels take the place of taps here, and the
taps (s, c) that of pixels::

    for j in range(columns):
        for k in range(filters):
            out[j * out_row + k] += sum(x[offsets[p] + j] * grad[p, k] for p in range(pixels))

Both factors are laid out so that their elements of one pixel lie side by side, and so is what
comes out: nothing is transposed here.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567, section II-J.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import Tile
from fastconv.codegen.vector import index


class GradientTile(Tile):
    """``columns`` taps times ``vectors * lanes`` filters; adds to `residual` if there is one."""

    def emit(self, columns: int, vectors: int) -> None:
        """Write the whole tile."""
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        places = [(j, v) for j in range(columns) for v in range(vectors)]

        def body(pixel: Any, corner: Any, sums: list[Any]) -> list[Any]:
            row = vector.at(self.weight, builder.mul(pixel, index(vectors * lanes)))
            grads = [vector.load(vector.at(row, index(v * lanes))) for v in range(vectors)]
            values = [
                vector.broadcast(builder.load(vector.at(corner, index(j)))) for j in range(columns)
            ]
            return [
                vector.multiply_add(values[j], grads[v], total)
                for (j, v), total in zip(places, sums, strict=True)
            ]

        sums = self.over_taps([vector.zero] * len(places), body)
        offsets = [
            builder.add(builder.mul(self.store.out_row, index(j)), index(v * lanes))
            for j, v in places
        ]
        with builder.if_else(self.store.has_residual) as (adding, alone):
            with adding:
                for total, offset in zip(sums, offsets, strict=True):
                    before = vector.load(builder.gep(self.store.residual, [offset]))
                    place = builder.gep(self.store.out, [offset])
                    vector.store(builder.fadd(before, total), place)
            with alone:
                for total, offset in zip(sums, offsets, strict=True):
                    vector.store(total, builder.gep(self.store.out, [offset]))
