"""The pooling microkernel: maxima or means of a block of windows of one plane.

Each input row is reduced along its windows once, and the result is used for every output row that
reads it. So elements are visited row by row, from left to right, as by a plain loop over the
window: of equal maxima the first one wins, and of several NaN the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from fastconv.codegen.integers import Integer
from fastconv.codegen.pool_tile import PoolTile, whole_or_masked
from fastconv.codegen.vector import I32, I64, Vectors

#: How an argmax is stored: not at all; as one byte, ``r * S + s``; or as its flat index in the
#: plane, an int64.
NONE, BYTES, INDICES = "", "byte", "index"
#: The byte where a ReLU makes the maximum 0: no tap of a window has this number.
NO_TAP = 255
# During the search a tap is one integer, with its row in the high bits.
_ROW_BITS = 8


class Reduction(NamedTuple):
    """What a tile computes: means or maxima; how their argmax is stored; whether a ReLU follows."""

    mean: bool = False
    argmax: str = NONE
    relu: bool = False


class Pool(PoolTile):
    """Windows of one shape times `rows` rows of one vector of outputs.

    Its arguments: addresses of the plane, `x`, of the tile's corner in the output and in the
    argmax, and of the divisors of its first row and column; the size of the plane; the row and
    column of the first tap of the first window, `top` and `left`; the row strides of output and
    argmax; the `columns` that remain.
    """

    def emit(self, reduction: Reduction) -> None:
        """Emit the microkernel. A ReLU needs an argmax in bytes."""
        v, lanes = self.v, self.vector.lanes
        self.mean, self.argmax, self.relu = reduction
        self.number = ir.IntType(self.vector.bits)
        self.x = self.pointer(v.x)
        last = max(self._columns(self.window.S - 1)) + lanes
        whole = self.all_of(
            (v.left + last).compare("<=", v.width),
            v.left.compare(">=", 0),
            v.columns.compare(">=", lanes),
        )
        whole_or_masked(self.builder, whole, self._write)

    def _write(self, masked: bool) -> None:
        window, down = self.window, self.window.stride[0]
        columns = sorted({column for s in range(window.S) for column in self._columns(s)})
        masks = {
            column: self.vector.within(self.v.left + column, self.v.width) if masked else None
            for column in columns
        }
        first = self._first_column() if self.argmax else None
        found = {}  # the maximum or sum of each output row, and its tap
        for i in range(self.rows):
            found[i, "value"] = self.vector.zero if self.mean else self._lowest
            if self.argmax:
                found[i, "tap"] = self._first_tap(i, first)
        for number in range((self.rows - 1) * down + window.R):
            # This input row is tap r of output row i.
            seen = [(i, number - i * down) for i in range(self.rows)]
            seen = [(i, r) for i, r in seen if 0 <= r < window.R]
            if seen:
                found = self._with_row(number, seen, masks, first, found)
        for i in range(self.rows):
            self._store(i, found[i, "value"], found.get((i, "tap")), masked)

    def _with_row(
        self, number: int, seen: list[tuple[int, int]], masks: Any, first: Any, found: Any
    ) -> dict[Any, Any]:
        """Return `found` updated with one input row."""
        h = self.v.top + number

        def compute() -> dict[Any, Any]:
            value, tap = self._row(h * self.v.width, masks, first)
            new = {}
            for i, r in seen:
                here = self.builder.add(tap, self._numbers(r << _ROW_BITS)) if tap else None
                old = found[i, "value"], found.get((i, "tap"))
                new[i, "value"], chosen = self._take(*old, value, here)
                if chosen:
                    new[i, "tap"] = chosen
            return new

        return self.if_in_plane(h, self.v.height, found, compute)

    def _columns(self, s: int) -> list[int]:
        """Return the first columns, relative to `left`, of the vectors that tap `s` reads."""
        across = self.window.stride[1]
        return [s // across * across + part * self.vector.lanes for part in range(across)]

    def _row(self, row: Integer, masks: dict[int, Any], first: Any) -> tuple[Any, Any]:
        """Reduce the input row at element `row` along the windows; return values and taps."""
        vector, across = self.vector, self.window.stride[1]
        outside = vector.zero if self.mean else self._lowest
        loaded = {
            column: vector.load(vector.at(self.x, row + self.v.left + column), mask, outside)
            for column, mask in masks.items()
        }
        value = tap = None
        for s in range(self.window.S):
            parts = [loaded[column] for column in self._columns(s)]
            new = parts[0]
            if across > 1:
                new = vector.pick(parts, [s % across + across * k for k in range(vector.lanes)])
            if s == 0:
                value, tap = new, first
            else:
                value, tap = self._take(value, tap, new, first and self._numbers(s))
        return value, tap

    @property
    def _lowest(self) -> Any:
        return self.vector.all(float("-inf"))

    def _first_tap(self, i: int, first: Any) -> Any:
        """Return the first tap inside the plane for output row `i`: the argmax of all -infinity."""
        builder, top = self.builder, self.v.top + i * self.window.stride[0]
        r = top.choose(top.compare("<", 0), -top, 0)
        return builder.add(first, self._spread(r * (1 << _ROW_BITS)))

    def _first_column(self) -> Any:
        """Return the first tap of each window that is not in the left padding."""
        builder, lanes = self.builder, self.vector.lanes
        first = self._numbers(0)
        steps = ir.Constant(first.type, [k * self.window.stride[1] for k in range(lanes)])
        column = builder.add(self._spread(self.v.left), steps)
        for s in range(1, self.window.S):
            # Tap s - 1 is in the padding.
            before = builder.icmp_signed("<", column, self._numbers(1 - s))
            first = builder.select(before, self._numbers(s), first)
        return first

    def _take(self, old: Any, old_tap: Any, new: Any, new_tap: Any) -> tuple[Any, Any]:
        """Return the sums, or the larger value and its tap for each lane, the old one if equal."""
        builder = self.builder
        if self.mean:
            return builder.fadd(old, new), None
        larger = builder.fcmp_ordered(">", new, old)
        missing = builder.fcmp_unordered("uno", new, new)
        if self.argmax:
            wins = builder.or_(larger, missing)
            return builder.select(wins, new, old), builder.select(wins, new_tap, old_tap)
        # The inner select compiles to one instruction, the processor's maximum.
        return builder.select(missing, new, builder.select(larger, new, old)), None

    def _store(self, i: int, value: Any, tap: Any, masked: bool) -> None:
        """Store output row `i`."""
        builder, vector, v = self.builder, self.vector, self.v
        mask = self.vector.within(v.columns * 0, v.columns) if masked else None
        if self.mean:
            rows, columns = self.pointer(v.row_divisors), self.pointer(v.column_divisors)
            row = vector.broadcast(builder.load(vector.at(rows, i)))
            across = vector.load(columns, mask, vector.all(1.0))
            value = builder.fdiv(value, builder.fmul(row, across))
        positive = None
        if self.relu:  # NaN stays NaN
            positive = builder.fcmp_unordered(">", value, vector.zero)
            value = builder.select(positive, value, vector.zero)
        offset = v.out_row * i
        vector.store(value, vector.at(self.pointer(v.out), offset), mask)
        if self.argmax == BYTES:
            self._store_bytes(i, tap, positive)
        elif self.argmax == INDICES:
            self._store_indices(i, tap, offset, mask)

    def _store_bytes(self, i: int, tap: Any, positive: Any) -> None:
        """Store a whole vector of bytes: rows of the argmax are padded for that."""
        builder, byte = self.builder, ir.IntType(8)
        r, s = self._row_and_column(tap)
        number = builder.add(builder.mul(r, self._numbers(self.window.S)), s)
        if positive:
            number = builder.select(positive, number, self._numbers(NO_TAP))
        kind = ir.VectorType(byte, self.vector.lanes)
        at = self.vector.at(self.pointer(self.v.argmax, byte), self.v.argmax_row * i)
        at = builder.bitcast(at, kind.as_pointer())
        builder.store(builder.trunc(number, kind), at, align=1)

    def _store_indices(self, i: int, tap: Any, offset: Integer, mask: Any) -> None:
        """Store ``h * width + w`` as int64."""
        builder, v, lanes = self.builder, self.v, self.vector.lanes
        wide = Vectors(builder, I64, lanes)
        r, s = (
            part if self.number == I64 else builder.zext(part, wide.type)
            for part in self._row_and_column(tap)
        )
        down, across = self.window.stride
        corner = (v.top + i * down) * v.width + v.left
        steps = ir.Constant(wide.type, [k * across for k in range(lanes)])
        flat = builder.add(builder.add(wide.broadcast(corner.value), steps), s)
        flat = builder.add(flat, builder.mul(r, wide.broadcast(v.width.value)))
        wide.store(flat, wide.at(self.pointer(v.argmax, I64), offset), mask)

    def _row_and_column(self, tap: Any) -> tuple[Any, Any]:
        builder = self.builder
        r = builder.lshr(tap, self._numbers(_ROW_BITS))
        return r, builder.and_(tap, self._numbers((1 << _ROW_BITS) - 1))

    def _numbers(self, value: int) -> Any:
        """Return a constant vector of integers as wide as the elements."""
        lanes = self.vector.lanes
        return ir.Constant(ir.VectorType(self.number, lanes), [value] * lanes)

    def _spread(self, number: Integer) -> Any:
        """Return a 64-bit integer in all lanes."""
        builder, value = self.builder, number.value
        value = builder.trunc(value, self.number) if self.number != I64 else value
        undefined = ir.Constant(ir.VectorType(self.number, self.vector.lanes), ir.Undefined)
        one = builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.vector.shuffle(one, one, [0] * self.vector.lanes)
