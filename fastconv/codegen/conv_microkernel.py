"""What the convolution microkernels share: arguments, layer parameters, the loop over taps.

A microkernel computes a tile, a block of output pixels times a block of output channels, with all
sums in registers::

    for k in range(filters):
        for i in range(rows):
            for j in range(columns):
                total = bias[k] + sum(
                    x[offsets[t] + i * x_row + j * x_step] * weight[t, k] for t in range(taps)
                )
                if residual:
                    total += residual[k * out_plane + i * out_row + j]
                out[k * out_plane + i * out_row + j * spacing] = activation(total)

The input is read in place: a table holds the offset of each tap (c, r, s), so there is no im2col
matrix. The code is vectorized over output channels (`fastconv.codegen.over_channels_microkernel`)
or over output width (`fastconv.codegen.over_width_microkernel`).

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567; the table of offsets is that of M. Dukhan, "The indirect
convolution algorithm", arXiv:1907.02129.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.integers import Integer, integer_at, integers_at
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.vector import add_source, index, phis, prefetch

#: The arguments of a microkernel, all 64-bit integers. Those up to `layer` are addresses;
#: `residual` may be 0, `numbers` are the activation's parameters. The first run has `head` taps;
#: `form` is the activation's form; `filters` and `columns` count the output channels and columns
#: that remain, fewer or more than the tile has; `ahead` is the prefetch distance in elements, 0 for
#: no prefetch.
ARGUMENTS = (
    *("x", "offsets", "weight", "bias", "residual", "out", "numbers", "layer"),
    *("taps", "head", "form", "filters", "columns", "ahead"),
)

#: The 64-bit integers that `layer` points to: strides in elements, and `run`, the number of taps
#: in one partial sum.
LAYER = ("run", "x_row", "x_step", "out_row", "out_plane")

#: Emits one tap: ``body(tap, corner, sums)`` returns the new sums; `corner` points to the tap's
#: element for the tile's first pixel.
Body = Callable[[Any, Any, list[Any]], list[Any]]


class ConvMicrokernel(Microkernel):
    """Base class of both; `spacing` is the column stride between output pixels."""

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any, spacing: int = 1) -> None:
        super().__init__(builder, bits, lanes, v)
        self.x, self.weight = self.operands("x", "weight")
        (self.bias,) = self.accumulators("bias")
        self.layer = g = integers_at(builder, v.layer, LAYER)
        fused = v.out, v.residual, v.numbers, v.form, g.out_row, g.out_plane
        self.epilogue = Epilogue(self.vector, *fused, spacing)

    def prefetch_next(self, pointer: Any, elements: int) -> None:
        """Prefetch the elements of the next block that correspond to those at `pointer`."""
        builder, ahead = self.builder, self.v.ahead
        # Without a distance, prefetch a line in L1: prefetching a line twice costs time.
        wanted = ahead.compare("!=", 0)
        for first in range(0, elements, self.operand.line):
            following = self.operand.at(pointer, ahead, first)
            cached = builder.bitcast(self.bias, following.type)
            prefetch(builder, builder.select(wanted, following, cached), level=2)

    def over_taps(self, start: list[Any], body: Body) -> list[Any]:
        """Emit the loop over the taps; return `start` plus their sums.

        Taps are summed in runs, and then the partial sums are added: rounding errors grow with the
        length of a sum, so they stay as small as those of one run. (N. Higham, "The accuracy of
        floating point summation", SIAM J. Sci. Comput. 14, 1993, section 3.) Skipping taps in the
        padding changes no bit: the other taps stay in the same runs, and a run of zeros adds
        nothing.
        """
        builder, vector, taps = self.builder, self.vector, self.v.taps.value
        memory = cgutils.alloca_once(builder, vector.type, size=index(len(start)))
        totals = [vector.at(memory, i) for i in range(len(start))]
        before = builder.block
        run, keep, copy, add, again, last, merge, done = (
            builder.append_basic_block(name)
            for name in ("run", "keep", "copy", "add", "again", "last", "merge", "done")
        )
        builder.branch(run)
        builder.position_at_end(run)
        zeros = [vector.zero] * len(start)
        begin, end, *sums = nodes = phis(builder, (before, [index(0), self.v.head.value, *zeros]))
        stop = builder.select(builder.icmp_signed("<", end, taps), end, taps)
        updated = self._one_run(begin, stop, sums, body)
        is_first = builder.icmp_signed("==", begin, index(0))
        builder.cbranch(builder.icmp_signed("<", stop, taps), keep, last)

        builder.position_at_end(keep)
        builder.cbranch(is_first, copy, add)
        for block in (copy, add):
            builder.position_at_end(block)
            for total, value in zip(totals, updated, strict=True):
                kept = value if block is copy else builder.fadd(value, builder.load(total))
                builder.store(kept, total)
            builder.branch(again)
        builder.position_at_end(again)
        add_source(nodes, again, [stop, builder.add(stop, self.layer.run.value), *zeros])
        builder.branch(run)

        builder.position_at_end(last)
        builder.cbranch(is_first, done, merge)
        builder.position_at_end(merge)
        added = [
            builder.fadd(value, builder.load(total))
            for total, value in zip(totals, updated, strict=True)
        ]
        builder.branch(done)
        builder.position_at_end(done)
        results = phis(builder, (last, updated), (merge, added))
        return [builder.fadd(sums, first) for sums, first in zip(results, start, strict=True)]

    def _one_run(self, begin: Any, stop: Any, sums: list[Any], body: Body) -> list[Any]:
        """Emit the loop over the taps of one run, at least one tap."""
        builder, before = self.builder, self.builder.block
        loop, ended = (builder.append_basic_block(name) for name in ("taps", "ended"))
        builder.branch(loop)
        builder.position_at_end(loop)
        tap, *old = nodes = phis(builder, (before, [begin, *sums]))
        corner = self.operand.at(self.x, integer_at(builder, self.v.offsets, tap))
        updated = body(Integer(builder, tap), corner, old)
        following = builder.add(tap, index(1))
        add_source(nodes, loop, [following, *updated])
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, ended)
        builder.position_at_end(ended)
        return updated
