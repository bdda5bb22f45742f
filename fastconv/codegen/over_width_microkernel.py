"""The microkernel vectorized over the output's width: a few filters times a few vectors of pixels.

Each tap loads vectors of neighbouring pixels, broadcasts one weight a filter, multiplies and
adds. Sums lie in registers as they will lie in memory, so storing costs nothing extra: it suits
maps with room for whole vectors, and few taps. Neighbouring output pixels must be neighbours in
what is read.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import ConvMicrokernel
from fastconv.codegen.epilogue_max_pool import store_maxima
from fastconv.codegen.vector import index


class OverWidth(ConvMicrokernel):
    """`filters` filters times `rows` rows of ``vectors * lanes`` pixels."""

    def emit(self, filters: int, rows: int, vectors: int, pooled: bool = False) -> None:
        """Write the whole microkernel.

        If `pooled`, maxima over 2 x 2 windows are stored, of an even number of rows and vectors, or
        of one vector: `out_row` and `out_plane` are then theirs, and there is no residual.
        """
        builder, operand, lanes = self.builder, self.operand, self.vector.lanes
        positions = [(i, v) for i in range(rows) for v in range(vectors)]
        down = [builder.mul(self.x_row, index(i)) for i in range(rows)]
        side = 2 if pooled else 1
        self.epilogue.prefetch_output(filters, rows // side, vectors * lanes // side)
        bias = self._bias(filters)

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            weights = builder.gep(self.weight, [builder.mul(tap, index(filters))])
            pixels = [
                operand.load(operand.at(corner, down[i], index(v * lanes))) for i, v in positions
            ]
            for row in down:
                self.prefetch_next(operand.at(corner, row), vectors * lanes)
            updated = []
            for k in range(filters):
                weight = operand.broadcast(builder.load(builder.gep(weights, [index(k)])))
                for p, values in enumerate(pixels):
                    total = sums[k * len(positions) + p]
                    updated.append(operand.dot(weight, values, total))
            return updated

        sums = self.over_taps([b for b in bias for _ in positions], body)
        if pooled:
            self._store_maxima(sums, filters, positions)
        else:
            self.epilogue.rows(sums, positions, vectors * lanes, self.filters, self.columns)

    def _bias(self, filters: int) -> list[Any]:
        """Return the bias of each filter as a vector, the last one for those beyond."""
        builder, bias = self.builder, []
        last = builder.sub(self.filters, index(1))
        for k in range(filters):
            there = builder.icmp_signed("<", index(k), self.filters)
            number = builder.select(there, index(k), last)
            bias.append(self.vector.broadcast(builder.load(builder.gep(self.bias, [number]))))
        return bias

    def _store_maxima(
        self, sums: list[Any], filters: int, positions: list[tuple[int, int]]
    ) -> None:
        """Apply the activation, and store maxima of those filters that are left."""
        builder, epilogue = self.builder, self.epilogue
        ready = epilogue.activated(epilogue.scaled(sums, len(positions)))
        for k in range(filters):
            own = dict(zip(positions, ready[k * len(positions) :], strict=False))
            with builder.if_then(builder.icmp_signed("<", index(k), self.filters)):
                plane = self.vector.at(epilogue.out, builder.mul(epilogue.out_plane, index(k)))
                store_maxima(self.vector, own, plane, epilogue.out_row, self.columns)
