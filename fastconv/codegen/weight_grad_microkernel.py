"""The weight-gradient microkernel: a few taps times a few vectors of output channels.

The gradient of a weight is a sum over all pixels. So pixels take the role of taps here, and taps
(s, c) the role of pixels::

    for j in range(columns):
        for k in range(filters):
            out[j * out_row + k] += sum(x[offsets[p] + j] * grad[p, k] for p in range(pixels))

Both factors and the result are packed channels-last, so nothing is transposed here.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567, section II-J.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.conv_microkernel import ConvMicrokernel


class WeightGradMicrokernel(ConvMicrokernel):
    """Computes `columns` taps times ``vectors * lanes`` output channels; adds `residual` if any."""

    def emit(self, columns: int, vectors: int) -> None:
        """Emit the microkernel."""
        builder, vector, operand, lanes = self.builder, self.vector, self.operand, self.vector.lanes
        positions = [(j, v) for j in range(columns) for v in range(vectors)]

        def body(pixel: Any, corner: Any, sums: list[Any]) -> list[Any]:
            row = operand.at(self.weight, pixel * (vectors * lanes))
            grads = [operand.load(operand.at(row, v * lanes)) for v in range(vectors)]
            loaded = [builder.load(operand.at(corner, j)) for j in range(columns)]
            values = [operand.broadcast(value) for value in loaded]
            return [
                operand.dot(values[j], grads[v], total)
                for (j, v), total in zip(positions, sums, strict=True)
            ]

        sums = self.over_taps([vector.zero] * len(positions), body)
        epilogue = self.epilogue
        offsets = [epilogue.out_row * j + v * lanes for j, v in positions]
        with builder.if_else(epilogue.has_residual) as (adding, alone):
            with adding:
                for total, offset in zip(sums, offsets, strict=True):
                    before = vector.load(vector.at(epilogue.residual, offset))
                    vector.store(builder.fadd(before, total), vector.at(epilogue.out, offset))
            with alone:
                for total, offset in zip(sums, offsets, strict=True):
                    vector.store(total, vector.at(epilogue.out, offset))
