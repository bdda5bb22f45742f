"""What the microkernels of convolution share: arguments, layer numbers, the loop over taps.

A microkernel computes a tile: a block of output pixels for a block of filters, with all its sums in
registers::

    for k in range(filters):
        for i in range(rows):
            for j in range(columns):
                total = bias[k] + sum(
                    x[offsets[t] + i * x_row + j * x_step] * weight[t, k] for t in range(taps)
                )
                if residual:
                    total += residual[k * out_plane + i * out_row + j]
                out[k * out_plane + i * out_row + j * spacing] = activation(total)

The input is read in place: a table of offsets says where each tap (c, r, s) finds its element, so
no column matrix is ever made. Vectors run over output channels
(`fastconv.codegen.over_channels_microkernel`) or over the output's width
(`fastconv.codegen.over_width_microkernel`).

Source: E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD
architectures", arXiv:1808.05567; the table of offsets is that of M. Dukhan, "The indirect
convolution algorithm", arXiv:1907.02129.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.integers import Integer, integer_at, integers_at
from fastconv.codegen.microkernel import Microkernel
from fastconv.codegen.vector import index, prefetch

#: What a microkernel is called with, all as 64-bit integers. Those up to `layer` are addresses;
#: `residual` may be 0, `numbers` are those of the activation. The first run of taps has `head` of
#: them; `form` is the activation's form; `filters` and `columns` are those left, which may be fewer
#: or more than the tile's; `ahead` is the prefetch distance in elements, 0 for no prefetch.
ARGUMENTS = (
    *("x", "offsets", "weight", "bias", "residual", "out", "numbers", "layer"),
    *("taps", "head", "form", "filters", "columns", "ahead"),
)

#: The 64-bit integers that `layer` points to, counted in elements but for `run`, the number of
#: taps that are summed before their sum is added to the others.
LAYER = ("run", "x_row", "x_step", "out_row", "out_plane")

#: Writes one tap: ``body(tap, corner, sums)`` returns the new sums; `corner` points to the tap's
#: element of the tile's first pixel.
Body = Callable[[Any, Any, list[Any]], list[Any]]


class ConvMicrokernel(Microkernel):
    """Base of both; `spacing` is the distance of neighbouring pixels in the output, in columns."""

    def __init__(
        self,
        builder: Any,
        bits: int,
        lanes: int,
        arguments: Mapping[str, Any],
        spacing: int = 1,
    ) -> None:
        super().__init__(builder, bits, lanes, arguments)
        v = self.v
        self.x, self.weight = self.operands("x", "weight")
        (self.bias,) = self.accumulators("bias")
        self.layer = g = integers_at(builder, v.layer, LAYER)
        fused = v.out, v.residual, v.numbers, v.form, g.out_row, g.out_plane
        self.epilogue = Epilogue(self.vector, *fused, spacing)

    def prefetch_next(self, pointer: Any, elements: int) -> None:
        """Prefetch what the same tile of the next block reads where this one reads `pointer`."""
        builder, ahead = self.builder, self.v.ahead
        # With no distance, what is near anyway: prefetching what is on its way costs time.
        wanted = ahead.compare("!=", 0)
        for first in range(0, elements, self.operand.line):
            there = self.operand.at(pointer, ahead, first)
            near = builder.bitcast(self.bias, there.type)
            prefetch(builder, builder.select(wanted, there, near), level=2)

    def over_taps(self, start: list[Any], body: Body) -> list[Any]:
        """Write the loop over the taps; return the sums, those of `start` included.

        The taps are summed in runs, and the sums of the runs are then added up: rounding errors
        grow with the length of a sum, and so they stay as small as those of a run. (N. Higham,
        "The accuracy of floating point summation", SIAM J. Sci. Comput. 14, 1993, section 3.)
        Taps left out because they lie in the padding change no bit: the others are cut into the
        same runs, and a run of zeros adds nothing.
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
        begin, end, *sums = self._phis(before, [index(0), self.v.head.value, *zeros])
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
        following = [stop, builder.add(stop, self.layer.run.value), *zeros]
        for phi, value in zip([begin, end, *sums], following, strict=True):
            phi.add_incoming(value, again)
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
        results = self._phis(last, updated)
        for phi, value in zip(results, added, strict=True):
            phi.add_incoming(value, merge)
        return [builder.fadd(sums, first) for sums, first in zip(results, start, strict=True)]

    def _one_run(self, begin: Any, stop: Any, sums: list[Any], body: Body) -> list[Any]:
        """Write the loop over the taps of a run, of which there is at least one."""
        builder, before = self.builder, self.builder.block
        loop, ended = (builder.append_basic_block(name) for name in ("taps", "ended"))
        builder.branch(loop)
        builder.position_at_end(loop)
        tap, *old = self._phis(before, [begin, *sums])
        corner = self.operand.at(self.x, integer_at(builder, self.v.offsets, tap))
        updated = body(Integer(builder, tap), corner, old)
        following = builder.add(tap, index(1))
        for phi, value in zip([tap, *old], [following, *updated], strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, ended)
        builder.position_at_end(ended)
        return updated

    def _phis(self, block: Any, values: list[Any]) -> list[Any]:
        """Return a phi for each value, which comes from `block`."""
        phis = [self.builder.phi(value.type) for value in values]
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, block)
        return phis
