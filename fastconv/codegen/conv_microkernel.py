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
                out[k * out_plane + i * out_row + j * apart] = activation(total)

The input is read where it lies: a table of offsets says where each tap (c, r, s) finds its
element, so no column matrix is ever made. There are two ways to lay the block into registers,
`fastconv.codegen.over_channels_microkernel` and `fastconv.codegen.over_width_microkernel`.

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567; the table of offsets is that of M. Dukhan, "The indirect
convolution algorithm", arXiv:1907.02129.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.epilogue import Store
from fastconv.codegen.vector import I64, Vectors, index, prefetch

#: What a tile is called with, all as 64-bit integers. Those up to `layer` are addresses;
#: `residual` may be 0, `numbers` are those of the activation. `form` is the activation's form;
#: `filters` and `columns` say how much of the tile is wanted; `ahead`, how many elements behind
#: what is read that lies which will be read next from memory far away: it is asked for.
ARGUMENTS = (
    *("x", "offsets", "weight", "bias", "residual", "out", "numbers", "layer"),
    *("taps", "head", "form", "filters", "columns", "ahead"),
)

#: The 64-bit integers that `layer` points to, counted in elements but for `run`, the number of
#: taps that are summed before their sum is added to the others. The first run has `head` taps.
LAYER = ("run", "x_row", "x_step", "out_row", "out_plane")


class Tile:
    """Writes the instructions of one tile; the two layouts derive from it.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    bits, lanes : int
        Of an element, and of a vector.
    arguments : dict of LLVM values
        By the names `ARGUMENTS`.
    apart : int
        How many columns of the output are from one pixel to the next.
    """

    def __init__(
        self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any], apart: int = 1
    ) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.taps, self.head, self.filters, self.columns, self.ahead = (
            arguments[name] for name in ("taps", "head", "filters", "columns", "ahead")
        )
        self.line = 512 // bits
        self.offsets = builder.inttoptr(arguments["offsets"], I64.as_pointer())
        self.x, self.weight, self.bias = (
            builder.inttoptr(arguments[name], element.as_pointer())
            for name in ("x", "weight", "bias")
        )
        layer = builder.inttoptr(arguments["layer"], I64.as_pointer())
        self.run, self.x_row, self.x_step, out_row, out_plane = (
            builder.load(builder.gep(layer, [index(place)])) for place in range(len(LAYER))
        )
        out, residual, numbers, form = (
            arguments[name] for name in ("out", "residual", "numbers", "form")
        )
        self.out, self.form, self.out_row, self.out_plane = out, form, out_row, out_plane
        self.numbers = builder.inttoptr(numbers, element.as_pointer())
        self.store = Store(self.vector, out, residual, numbers, form, out_row, out_plane, apart)

    def fetch_ahead(self, place: Any, elements: int) -> None:
        """Ask for `elements` elements that will be read when those at `place` are done with."""
        # Where nothing is wanted, what is near anyway: asking for what is on its way costs time.
        wanted = self.builder.icmp_signed("!=", self.ahead, index(0))
        for first in range(0, elements, self.line):
            there = self.vector.at(place, self.ahead, index(first))
            prefetch(self.builder, self.builder.select(wanted, there, self.bias), level=2)

    def over_taps(self, start: list[Any], body: Any) -> list[Any]:
        """Write the loop over the taps; return the sums, those of `start` included.

        ``body(tap, corner, sums)`` returns the new sums; `corner` is where the tap's element of
        the tile's first pixel lies.

        The taps are summed in runs, and the sums of the runs are then added up: rounding errors
        grow with the length of a sum, and so they stay as small as those of a run. (N. Higham,
        "The accuracy of floating point summation", SIAM J. Sci. Comput. 14, 1993, section 3.)
        Taps left out because they lie in the margin change no bit: the others are cut into the
        same runs, and a run of zeros adds nothing.
        """
        builder, vector = self.builder, self.vector
        totals = cgutils.alloca_once(builder, vector.type, size=index(len(start)))
        places = [builder.gep(totals, [index(i)]) for i in range(len(start))]
        before = builder.block
        run, loop, ended, keep, copy, add, again, last, merge, done = (
            builder.append_basic_block(name)
            for name in (
                *("run", "taps", "ended", "keep", "copy", "add", "again"),
                *("last", "merge", "done"),
            )
        )

        def phis(block: Any, values: list[Any]) -> list[Any]:
            """Return a phi for each value, which comes from `block`."""
            result = [builder.phi(value.type) for value in values]
            for phi, value in zip(result, values, strict=True):
                phi.add_incoming(value, block)
            return result

        builder.branch(run)
        builder.position_at_end(run)
        begin, end, *sums = phis(before, [index(0), self.head, *[vector.zero] * len(start)])
        stop = builder.select(builder.icmp_signed("<", end, self.taps), end, self.taps)
        builder.branch(loop)

        builder.position_at_end(loop)
        tap, *sums_of_loop = phis(run, [begin, *sums])
        corner = builder.gep(self.x, [builder.load(builder.gep(self.offsets, [tap]))])
        updated: list[Any] = body(tap, corner, sums_of_loop)
        following = builder.add(tap, index(1))
        for phi, value in zip([tap, *sums_of_loop], [following, *updated], strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, ended)

        builder.position_at_end(ended)
        is_first = builder.icmp_signed("==", begin, index(0))
        builder.cbranch(builder.icmp_signed("<", stop, self.taps), keep, last)
        builder.position_at_end(keep)
        builder.cbranch(is_first, copy, add)
        for block in (copy, add):
            builder.position_at_end(block)
            for place, value in zip(places, updated, strict=True):
                kept = value if block is copy else builder.fadd(value, builder.load(place))
                builder.store(kept, place)
            builder.branch(again)
        builder.position_at_end(again)
        following_run = [stop, builder.add(stop, self.run), *[vector.zero] * len(sums)]
        for phi, value in zip([begin, end, *sums], following_run, strict=True):
            phi.add_incoming(value, again)
        builder.branch(run)

        builder.position_at_end(last)
        builder.cbranch(is_first, done, merge)
        builder.position_at_end(merge)
        added = [
            builder.fadd(value, builder.load(place))
            for place, value in zip(places, updated, strict=True)
        ]
        builder.branch(done)
        builder.position_at_end(done)
        results = phis(last, updated)
        for phi, value in zip(results, added, strict=True):
            phi.add_incoming(value, merge)
        return [builder.fadd(sums, first) for sums, first in zip(results, start, strict=True)]
