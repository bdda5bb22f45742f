"""The pooling backward microkernel: each input pixel gathers the gradients of its windows.

An input pixel is in few windows. Which ones depends only on its phase, its index modulo the stride.
All pixels of a phase use the same taps, so a vector of windows contributes to one vector of pixels.
The phases of a row are interleaved when they are stored. Each sum adds the windows in output order.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir

from fastconv.codegen.integers import Integer
from fastconv.codegen.pool_tile import PoolTile, whole_or_masked


class PoolGrad(PoolTile):
    """Computes the pixels from `rows` rows of one vector of windows up to the next windows.

    Its arguments: addresses of the planes of the output gradient, the argmax (a byte each) and the
    input gradient, `out`, and of the divisors of all rows and columns of windows; the sizes of the
    planes; the row stride of the argmax; the first window, `i` and `j`, and the row and column of
    its first tap, `top` and `left`.
    """

    def emit(self, mean: bool) -> None:
        """Emit the microkernel."""
        v, lanes, across = self.v, self.vector.lanes, self.window.stride[1]
        self.mean = mean
        self.grad, self.out = self.pointer(v.grad), self.pointer(v.out)
        # Distances to the earlier windows that contribute to the tile, the largest first.
        self.back = range((self.window.S - 1) // across, -1, -1)
        whole = self.all_of(
            (v.left + lanes * across).compare("<=", v.width),
            v.left.compare(">=", 0),
            (v.j - self.back[0]).compare(">=", 0),
            (v.j + lanes).compare("<=", v.out_width),
        )
        whole_or_masked(self.builder, whole, self._write)

    def _write(self, masked: bool) -> None:
        v, (down, across) = self.v, self.window.stride
        masks = {
            back: self.vector.within(v.j - back, v.out_width) if masked else None
            for back in self.back
        }
        sums: dict[tuple[int, int], Any] = {}
        for t in range(-((self.window.R - 1) // down), self.rows):
            # Tap r of window row i + t is row t * down + r of the tile.
            taps = [(r, t * down + r) for r in range(self.window.R)]
            taps = [(r, row) for r, row in taps if 0 <= row < self.rows * down]
            sums = self._with_windows(v.i + t, taps, masks, sums)
        for row in range(self.rows * down):
            phases = [sums.get((row, phase), self.vector.zero) for phase in range(across)]
            self._store(row, phases, masked)

    def _with_windows(
        self, i: Integer, taps: list[tuple[int, int]], masks: dict[int, Any], sums: Any
    ) -> dict[tuple[int, int], Any]:
        """Return the sums of the tile's pixels after adding the windows of row `i`."""
        across = self.window.stride[1]

        def compute() -> dict[tuple[int, int], Any]:
            new: dict[tuple[int, int], Any] = {}
            for back, mask in masks.items():
                grad, argmax = self._windows(i, self.v.j - back, mask)
                of_back = range(back * across, min((back + 1) * across, self.window.S))
                for (r, row), s in itertools.product(taps, of_back):
                    value, pixel = self._contribution(grad, argmax, r, s), (row, s % across)
                    old = new.get(pixel, sums.get(pixel))
                    new[pixel] = value if old is None else self.builder.fadd(old, value)
            return new

        return self.if_in_plane(i, self.v.out_height, sums, compute)

    def _windows(self, i: Integer, j: Integer, mask: Any) -> tuple[Any, Any]:
        """Return the gradients of a vector of windows from (i, j) on, and their argmax for max."""
        builder, vector, v = self.builder, self.vector, self.v
        grad = vector.load(vector.at(self.grad, i * v.out_width + j), mask)
        if self.mean:
            rows, columns = self.pointer(v.row_divisors), self.pointer(v.column_divisors)
            row = vector.broadcast(builder.load(vector.at(rows, i)))
            column = vector.load(vector.at(columns, j), mask, vector.all(1.0))
            return builder.fdiv(grad, builder.fmul(row, column)), None
        # Whole vectors of bytes are loaded: the argmax is padded for that.
        byte = ir.IntType(8)
        kind = ir.VectorType(byte, vector.lanes)
        at = vector.at(self.pointer(v.argmax, byte), i * v.argmax_row + j)
        return grad, builder.load(builder.bitcast(at, kind.as_pointer()), align=1)

    def _contribution(self, grad: Any, argmax: Any, r: int, s: int) -> Any:
        """Return what windows contribute to the pixels at their tap (r, s)."""
        if argmax is None:
            return grad
        tap = ir.Constant(argmax.type, [r * self.window.S + s] * self.vector.lanes)
        here = self.builder.icmp_signed("==", argmax, tap)
        return self.builder.select(here, grad, self.vector.zero)

    def _store(self, row: int, phases: list[Any], masked: bool) -> None:
        """Interleave the phases of a row of pixels, and store it if it is inside the plane."""
        builder, vector, v = self.builder, self.vector, self.v
        lanes, across = vector.lanes, len(phases)
        h = v.top + row
        with builder.if_then(builder.icmp_unsigned("<", h.value, v.height.value)):
            for part in range(across):
                numbers = range(part * lanes, (part + 1) * lanes)
                picks = [k % across * lanes + k // across for k in numbers]
                pixels = phases[0] if across == 1 else vector.pick(phases, picks)
                w = v.left + part * lanes
                mask = self.vector.within(w, v.width) if masked else None
                vector.store(pixels, vector.at(self.out, h * v.width + w), mask)
