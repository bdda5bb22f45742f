"""What all register tiles of convolution share: arguments, layer numbers, and the way out.

A tile computes a block of output pixels for a block of filters, with all its sums in registers::

    for k in range(filters):
        for i in range(rows):
            for j in range(columns):
                total = bias[k] + sum(
                    x[offsets[t] + i * x_row + j * x_step] * weight[t, k] for t in range(taps)
                )
                if residual:
                    total += residual[k * out_plane + i * out_row + j]
                out[k * out_plane + i * out_row + j] = activation(total)

The input is read where it lies: a table of offsets says where each tap (c, r, s) finds its
element, so no column matrix is ever made. There are two ways to lay the block into registers,
`fastconv.codegen.filter_lanes` and `fastconv.codegen.pixel_lanes`.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567; the table of offsets is that of M. Dukhan, "The indirect
convolution algorithm", arXiv:1907.02129.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.codegen.store import Store
from fastconv.codegen.vector import I64, Vectors, index

#: What a tile is called with, all as 64-bit integers. Those up to `layer` are addresses;
#: `residual` may be 0, `numbers` are those of the activation. `form` is the activation's form;
#: `filters` and `columns` say how much of the tile is wanted.
ARGUMENTS = (
    *("x", "offsets", "weight", "bias", "residual", "out", "numbers", "layer"),
    *("form", "filters", "columns"),
)

#: The 64-bit integers that `layer` points to, counted in elements but for `taps`.
LAYER = ("taps", "x_row", "x_step", "out_row", "out_plane")


class Tile:
    """Writes the instructions of one tile; the two layouts derive from it.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    bits, lanes : int
        Of an element, and of a vector.
    arguments : sequence of LLVM values
        In the order of `ARGUMENTS`.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: Any) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        values = dict(zip(ARGUMENTS, arguments, strict=True))
        self.filters, self.columns = values["filters"], values["columns"]
        self.offsets = builder.inttoptr(values["offsets"], I64.as_pointer())
        self.x, self.weight, self.bias = (
            builder.inttoptr(values[name], element.as_pointer()) for name in ("x", "weight", "bias")
        )
        layer = builder.inttoptr(values["layer"], I64.as_pointer())
        self.taps, self.x_row, self.x_step, out_row, out_plane = (
            builder.load(builder.gep(layer, [index(place)])) for place in range(len(LAYER))
        )
        out, residual, numbers, form = (
            values[name] for name in ("out", "residual", "numbers", "form")
        )
        self.store = Store(self.vector, out, residual, numbers, form, out_row, out_plane)

    def over_taps(self, start: list[Any], body: Any) -> list[Any]:
        """Write the loop over the taps; return the sums.

        ``body(tap, corner, sums)`` returns the new sums; `corner` is where the tap's element of
        the tile's first pixel lies.
        """
        builder = self.builder
        before = builder.block
        loop, done = (builder.append_basic_block(name) for name in ("taps", "summed"))
        builder.branch(loop)
        builder.position_at_end(loop)
        tap = builder.phi(I64)
        tap.add_incoming(index(0), before)
        sums = [builder.phi(self.vector.type) for _ in start]
        for total, first in zip(sums, start, strict=True):
            total.add_incoming(first, before)
        corner = builder.gep(self.x, [builder.load(builder.gep(self.offsets, [tap]))])
        updated: list[Any] = body(tap, corner, sums)
        following = builder.add(tap, index(1))
        tap.add_incoming(following, loop)
        for total, value in zip(sums, updated, strict=True):
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, self.taps), loop, done)
        builder.position_at_end(done)
        return updated
