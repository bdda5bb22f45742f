"""The microkernel vectorized over output width: a few output channels times vectors of pixels.

Each tap loads vectors of neighbouring pixels, broadcasts one weight per output channel, multiplies
and adds. The sums are already in the order of the output, so the store needs no transpose: this
suits maps wide enough for whole vectors, and few taps. Neighbouring output pixels must be
neighbours in the input too.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import ConvMicrokernel
from fastconv.codegen.epilogue_max_pool import store_maxima


class OverWidth(ConvMicrokernel):
    """Computes `filters` output channels times `rows` rows of ``vectors * lanes`` pixels."""

    def emit(self, filters: int, rows: int, vectors: int, pooled: bool = False) -> None:
        """Emit the microkernel.

        If `pooled`, maxima over 2 x 2 windows are stored. The number of rows is then even, and that
        of vectors even or one; `out_row` and `out_plane` are the strides of the maxima, and there
        is no residual.
        """
        builder, operand, lanes = self.builder, self.operand, self.vector.lanes
        positions = [(i, v) for i in range(rows) for v in range(vectors)]
        down = [self.layer.x_row * i for i in range(rows)]
        side = 2 if pooled else 1
        self.epilogue.prefetch_output(filters, rows // side, vectors * lanes // side)
        bias = self._bias(filters)

        def body(tap: Any, corner: Any, sums: list[Any]) -> list[Any]:
            weights = operand.at(self.weight, tap * filters)
            pixels = [operand.load(operand.at(corner, down[i], v * lanes)) for i, v in positions]
            for row in down:
                self.prefetch_next(operand.at(corner, row), vectors * lanes)
            updated = []
            for k in range(filters):
                weight = operand.broadcast(builder.load(operand.at(weights, k)))
                for p, values in enumerate(pixels):
                    total = sums[k * len(positions) + p]
                    updated.append(operand.dot(weight, values, total))
            return updated

        sums = self.over_taps([b for b in bias for _ in positions], body)
        if pooled:
            self._store_maxima(sums, filters, positions)
        else:
            self.epilogue.rows(sums, positions, vectors * lanes, self.v.filters, self.v.columns)

    def _bias(self, filters: int) -> list[Any]:
        """Return the bias of each output channel as a vector, the last one for missing channels."""
        last = self.v.filters - 1
        existing = [last.at_most(k) for k in range(filters)]
        bias = [self.builder.load(self.vector.at(self.bias, k)) for k in existing]
        return [self.vector.broadcast(value) for value in bias]

    def _store_maxima(
        self, sums: list[Any], filters: int, positions: list[tuple[int, int]]
    ) -> None:
        """Apply the activation, and store the maxima of the output channels that remain."""
        epilogue = self.epilogue
        ready = epilogue.activated(epilogue.scaled(sums, len(positions)))
        for k in range(filters):
            own = dict(zip(positions, ready[k * len(positions) :], strict=False))
            with self.builder.if_then(self.v.filters.compare(">", k)):
                plane = self.vector.at(epilogue.out, epilogue.out_plane * k)
                store_maxima(self.vector, own, plane, epilogue.out_row, self.v.columns)
