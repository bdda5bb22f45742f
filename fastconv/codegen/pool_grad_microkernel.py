"""The register tile of pooling's gradients: each pixel sums what its windows give it.

Seen from the input a pixel is in few windows, and which ones depends only on its phase, the
position between two windows. All pixels of a phase take the same taps, so a vector of windows gives
its gradients, or what of them belongs to a tap, to one vector of pixels. The phases of a row are
interleaved when they are stored. Each sum adds the windows in their order in the output.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir

from fastconv.codegen.integers import Integer
from fastconv.codegen.pool_tile import PoolTile, both_ways

#: The tile's arguments: addresses of the planes of the output's gradient, of the argmax (a byte
#: each) and of the input's gradient, of the divisors of all rows and columns of windows; the sizes
#: of the planes, elements from one row of the argmax to the next, the first window, and the row and
#: column of its first tap.
ARGUMENTS = (
    *("grad", "argmax", "out", "row_divisors", "column_divisors"),
    *("height", "width", "out_height", "out_width", "argmax_row", "i", "j", "top", "left"),
)


class PoolGrad(PoolTile):
    """The pixels from `rows` rows of one vector of windows on, up to where the next begin."""

    def emit(self, mean: bool) -> None:
        """Write the whole tile."""
        v, lanes, across = self.v, self.vector.lanes, self.window.stride[1]
        self.mean = mean
        self.grad, self.out = self.pointer(v.grad), self.pointer(v.out)
        # How many windows before the tile's one give to the tile, from far to near.
        self.back = range((self.window.S - 1) // across, -1, -1)
        whole = self.all_of(
            (v.left + lanes * across).compare("<=", v.width),
            v.left.compare(">=", 0),
            (v.j - self.back[0]).compare(">=", 0),
            (v.j + lanes).compare("<=", v.out_width),
        )
        both_ways(self.builder, whole, self._write)

    def _write(self, masked: bool) -> None:
        v, (down, across) = self.v, self.window.stride
        masks = {
            back: self.within(v.j - back, v.out_width) if masked else None for back in self.back
        }
        sums: dict[tuple[int, int], Any] = {}
        for t in range(-((self.window.R - 1) // down), self.rows):
            # A window of row i + t has its tap r in the tile's row number t * down + r.
            taps = [(r, t * down + r) for r in range(self.window.R)]
            taps = [(r, row) for r, row in taps if 0 <= row < self.rows * down]
            sums = self._with_windows(v.i + t, taps, masks, sums)
        for row in range(self.rows * down):
            phases = [sums.get((row, phase), self.vector.zero) for phase in range(across)]
            self._store(row, phases, masked)

    def _with_windows(
        self, i: Integer, taps: list[tuple[int, int]], masks: dict[int, Any], sums: Any
    ) -> dict[tuple[int, int], Any]:
        """Return the sums of the tile's pixels with what windows of row `i` give them."""
        across = self.window.stride[1]

        def compute() -> dict[tuple[int, int], Any]:
            new: dict[tuple[int, int], Any] = {}
            for back, mask in masks.items():
                grad, argmax = self._windows(i, self.v.j - back, mask)
                of_back = range(back * across, min((back + 1) * across, self.window.S))
                for (r, row), s in itertools.product(taps, of_back):
                    given, pixel = self._given(grad, argmax, r, s), (row, s % across)
                    old = new.get(pixel, sums.get(pixel))
                    new[pixel] = given if old is None else self.builder.fadd(old, given)
            return new

        return self.if_in_plane(i, self.v.out_height, sums, compute)

    def _windows(self, i: Integer, j: Integer, mask: Any) -> tuple[Any, Any]:
        """Return what windows give, from (i, j) on: to each tap, or to those of their argmax."""
        builder, vector, v = self.builder, self.vector, self.v
        grad = self.load(vector.at(self.grad, (i * v.out_width + j).value), mask)
        if self.mean:
            rows, columns = self.pointer(v.row_divisors), self.pointer(v.column_divisors)
            row = vector.broadcast(builder.load(vector.at(rows, i.value)))
            column = self.load(vector.at(columns, j.value), mask, vector.all(1.0))
            return builder.fdiv(grad, builder.fmul(row, column)), None
        # Whole vectors of bytes are loaded: the argmax is padded for that.
        byte = ir.IntType(8)
        kind = ir.VectorType(byte, vector.lanes)
        at = vector.at(self.pointer(v.argmax, byte), (i * v.argmax_row + j).value)
        return grad, builder.load(builder.bitcast(at, kind.as_pointer()), align=1)

    def _given(self, grad: Any, argmax: Any, r: int, s: int) -> Any:
        """Return what windows give to the pixels under their tap (r, s)."""
        if argmax is None:
            return grad
        tap = ir.Constant(argmax.type, [r * self.window.S + s] * self.vector.lanes)
        here = self.builder.icmp_signed("==", argmax, tap)
        return self.builder.select(here, grad, self.vector.zero)

    def _store(self, row: int, phases: list[Any], masked: bool) -> None:
        """Interleave the phases of a row of pixels, and store it if it is one."""
        builder, vector, v = self.builder, self.vector, self.v
        lanes, across = vector.lanes, len(phases)
        h = v.top + row
        with builder.if_then(builder.icmp_unsigned("<", h.value, v.height.value)):
            for part in range(across):
                numbers = range(part * lanes, (part + 1) * lanes)
                picks = [k % across * lanes + k // across for k in numbers]
                pixels = phases[0] if across == 1 else vector.pick(phases, picks)
                w = v.left + part * lanes
                mask = self.within(w, v.width) if masked else None
                self.store(vector, pixels, vector.at(self.out, (h * v.width + w).value), mask)
