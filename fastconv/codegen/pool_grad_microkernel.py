"""The register tile of pooling's gradients: each pixel sums what its windows send it.

Seen from the input a pixel is in few windows, and which ones depends only on where it lies between
two windows: its phase. All pixels of a phase take the same taps, so a vector of windows sends its
gradients, or what of them belongs to a tap, to one vector of pixels. The phases of a row are
interleaved when they are stored. Each sum adds the windows in their order in the output.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.codegen.pool_microkernel import Window, both_ways, merge
from fastconv.codegen.vector import Vectors, index

#: What the tile is called with, as 64-bit integers: addresses of the planes of the output's
#: gradient, of the places of maxima (a byte each) and of the input's gradient, of the divisors of
#: all rows and columns of windows; the sizes of the planes, elements from one row of places to the
#: next, the first window, and the row and column of its first tap.
ARGUMENTS = (
    *("grad", "places", "out", "row_divisors", "column_divisors"),
    *("height", "width", "out_height", "out_width", "place_row", "i", "j", "top", "left"),
)


class PoolGrad:
    """The pixels from `rows` rows of one vector of windows on, up to where the next begin."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        self.element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, self.element, lanes)
        self.values = arguments
        self.grad, self.out, self.row_divisors, self.column_divisors = (
            builder.inttoptr(self.values[name], self.element.as_pointer())
            for name in ("grad", "out", "row_divisors", "column_divisors")
        )
        self.places = builder.inttoptr(self.values["places"], ir.IntType(8).as_pointer())

    def emit(self, window: Window, rows: int, mean: bool) -> None:
        """Write the whole tile."""
        self.window, self.rows, self.mean = window, rows, mean
        both_ways(self.builder, self._whole(), self._write)

    def _back(self) -> list[int]:
        """Return how many windows before the tile's one sends tap s there, from far to near."""
        window = self.window
        return list(range((window.S - 1) // window.stride[1], -1, -1))

    def _whole(self) -> Any:
        """Return whether no mask is needed."""
        builder, values, lanes = self.builder, self.values, self.vector.lanes
        right = builder.add(values["left"], index(lanes * self.window.stride[1]))
        whole = builder.icmp_signed("<=", right, values["width"])
        first = builder.sub(values["j"], index(self._back()[0]))
        end = builder.add(values["j"], index(lanes))
        for condition in (
            builder.icmp_signed(">=", values["left"], index(0)),
            builder.icmp_signed(">=", first, index(0)),
            builder.icmp_signed("<=", end, values["out_width"]),
        ):
            whole = builder.and_(whole, condition)
        return whole

    def _write(self, masked: bool) -> None:
        window, builder, values = self.window, self.builder, self.values
        down, across = window.stride
        masks = {back: self._mask(back) if masked else None for back in self._back()}
        sums: dict[tuple[int, int], Any] = {}
        for t in range(-((window.R - 1) // down), self.rows):
            # A window of row i + t has its tap r in the tile's row number t * down + r.
            taps = [(r, t * down + r) for r in range(window.R)]
            taps = [(r, row) for r, row in taps if 0 <= row < self.rows * down]
            before, kept = builder.block, dict(sums)
            i = builder.add(values["i"], index(t))
            with builder.if_then(builder.icmp_unsigned("<", i, values["out_height"])):
                for back, mask in masks.items():
                    self._send(sums, i, back, mask, taps)
                inside = builder.block
            for place in sums:
                old = kept.get(place, self.vector.zero)
                if sums[place] is not old:
                    sums[place] = merge(builder, [(old, before), (sums[place], inside)])
        for row in range(self.rows * down):
            phases = [sums.get((row, phase), self.vector.zero) for phase in range(across)]
            self._store(row, phases, masked)

    def _mask(self, back: int) -> Any:
        start = self.builder.sub(self.values["j"], index(back))
        return self.vector.within(start, self.values["out_width"])

    def _send(
        self,
        sums: dict[tuple[int, int], Any],
        i: Any,
        back: int,
        mask: Any,
        taps: list[tuple[int, int]],
    ) -> None:
        """Add what the windows of row `i`, `back` columns before, send to the tile's pixels."""
        builder, vector, window, values = self.builder, self.vector, self.window, self.values
        j = builder.sub(values["j"], index(back))
        at = builder.gep(self.grad, [builder.add(builder.mul(i, values["out_width"]), j)])
        grad = vector.load_masked(at, mask) if mask else vector.load(at)
        if self.mean:
            row = vector.broadcast(builder.load(builder.gep(self.row_divisors, [i])))
            at = builder.gep(self.column_divisors, [j])
            column = vector.load_masked(at, mask, vector.all(1.0)) if mask else vector.load(at)
            grad = builder.fdiv(grad, builder.fmul(row, column))
            place = None
        else:
            place = self._load_places(builder.add(builder.mul(i, values["place_row"]), j))
        for r, row in taps:
            for s in range(window.S):
                if s // window.stride[1] != back:
                    continue
                sent = grad
                if place:
                    tap = ir.Constant(place.type, [r * window.S + s] * vector.lanes)
                    here = builder.icmp_signed("==", place, tap)
                    sent = builder.select(here, grad, vector.zero)
                pixel = row, s % window.stride[1]
                sums[pixel] = builder.fadd(sums[pixel], sent) if pixel in sums else sent

    def _load_places(self, offset: Any) -> Any:
        """Load a whole vector of bytes: before and behind the places there is room for that."""
        builder = self.builder
        kind = ir.VectorType(ir.IntType(8), self.vector.lanes)
        at = builder.bitcast(builder.gep(self.places, [offset]), kind.as_pointer())
        return builder.load(at, align=1)

    def _store(self, row: int, phases: list[Any], masked: bool) -> None:
        """Interleave the phases of a row of pixels, and store it if it is one."""
        builder, vector, values = self.builder, self.vector, self.values
        lanes, across = vector.lanes, len(phases)
        h = builder.add(values["top"], index(row))
        with builder.if_then(builder.icmp_unsigned("<", h, values["height"])):
            line = builder.add(builder.mul(h, values["width"]), values["left"])
            for part in range(across):
                numbers = range(part * lanes, (part + 1) * lanes)
                picks = [k % across * lanes + k // across for k in numbers]
                pixels = phases[0] if across == 1 else vector.pick(phases, picks)
                at = builder.gep(self.out, [builder.add(line, index(part * lanes))])
                if masked:
                    start = builder.add(values["left"], index(part * lanes))
                    vector.store_masked(pixels, at, vector.within(start, values["width"]))
                else:
                    vector.store(pixels, at)
