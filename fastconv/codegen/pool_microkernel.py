"""The register tile of pooling: maxima or means of the windows of a block of one plane.

A row of input is reduced along its windows once, and what comes of it goes into every output row
that sees it. So elements are taken row by row, each row from left to right, as a plain loop over
the window takes them: of equal maxima the first one wins, and of several NaN the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from fastconv.codegen.vector import I32, I64, Vectors, index
from fastconv.runtime import cpu

#: What the tile is called with, as 64-bit integers: addresses of the plane, of the tile's corner in
#: the output and in the places, and of the divisors of its first row and column; the size of the
#: plane, the row and column that the first tap of the first window reads, elements from one row of
#: the output, and of the places, to the next, and the columns left.
ARGUMENTS = (
    *("x", "out", "places", "row_divisors", "column_divisors"),
    *("height", "width", "top", "left", "out_row", "place_row", "columns"),
)

#: Where the maximum of a window was: not asked for; one byte, ``r * S + s``; or its flat index in
#: the plane, as int64.
NOT_ASKED, BYTES, INDICES = "", "byte", "index"
#: The byte of a maximum that a rectifier makes 0: no tap of a window has this number.
NOWHERE = 255
# A place while it is looked for: its row in the high bits.
_ROW_BITS = 8


class Window(NamedTuple):
    """Taps of a window and the distance of windows, each down and across. There is no dilation."""

    R: int
    S: int
    stride: tuple[int, int]

    @property
    def name(self) -> str:
        """What stands for it in the names of kernels."""
        return f"{self.R}x{self.S}-s{self.stride[0]}x{self.stride[1]}"


class _Reduced(NamedTuple):
    """Maxima and their places, or sums."""

    value: Any
    place: Any = None


class Pool:
    """Windows of one shape times `rows` rows of one vector of outputs."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        self.element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, self.element, lanes)
        self.number = ir.IntType(bits)
        self.values = arguments
        self.x = builder.inttoptr(self.values["x"], self.element.as_pointer())

    def emit(self, window: Window, rows: int, mean: bool, places: str, rectified: bool) -> None:
        """Write the whole tile. What is `rectified` has its places in bytes."""
        self.window, self.rows, self.mean, self.places = window, rows, mean, places
        self.rectified = rectified
        both_ways(self.builder, self._whole(), self._write)

    def _whole(self) -> Any:
        """Return whether no mask is needed."""
        builder, values, lanes = self.builder, self.values, self.vector.lanes
        last = max(self._columns(self.window.S - 1)) + lanes
        inside = builder.icmp_signed(
            "<=", builder.add(values["left"], index(last)), values["width"]
        )
        for condition in (
            builder.icmp_signed(">=", values["left"], index(0)),
            builder.icmp_signed(">=", values["columns"], index(lanes)),
        ):
            inside = builder.and_(inside, condition)
        return inside

    def _write(self, masked: bool) -> None:
        window, builder, values = self.window, self.builder, self.values
        masks: dict[int, Any] = {}
        if masked:
            for s in range(window.S):
                for column in self._columns(s):
                    start = builder.add(values["left"], index(column))
                    masks[column] = self.vector.within(start, values["width"])
        first = self._first_column() if self.places else None
        found = [self._nothing(i, first) for i in range(self.rows)]
        down = window.stride[0]
        for number in range((self.rows - 1) * down + window.R):
            # This row of input is tap r of output row i.
            seen = [(i, number - i * down) for i in range(self.rows)]
            seen = [(i, r) for i, r in seen if 0 <= r < window.R]
            if not seen:
                continue
            before, kept = builder.block, list(found)
            h = builder.add(values["top"], index(number))
            with builder.if_then(builder.icmp_unsigned("<", h, values["height"])):
                row = self._row(builder.mul(h, values["width"]), masks, first)
                for i, r in seen:
                    place = row.place and builder.add(row.place, self._numbers(r << _ROW_BITS))
                    found[i] = self._take(found[i], _Reduced(row.value, place))
                inside = builder.block
            for i, _ in seen:
                found[i] = _Reduced(
                    *(
                        new and merge(builder, [(old, before), (new, inside)])
                        for old, new in zip(kept[i], found[i], strict=True)
                    )
                )
        for i, reduced in enumerate(found):
            self._store(i, reduced, masked)

    def _columns(self, s: int) -> list[int]:
        """Return the first columns, from `left` on, of the vectors that hold what tap `s` sees."""
        across = self.window.stride[1]
        return [s // across * across + part * self.vector.lanes for part in range(across)]

    def _row(self, row: Any, masks: dict[int, Any], first: Any) -> _Reduced:
        """Return what the windows find in the row of input that begins `row` elements in."""
        builder, vector, window = self.builder, self.vector, self.window
        across = window.stride[1]
        outside = vector.zero if self.mean else vector.all(float("-inf"))
        loaded: dict[int, Any] = {}
        found = _Reduced(None)
        for s in range(window.S):
            for column in self._columns(s):
                if column not in loaded:
                    at = builder.add(row, builder.add(self.values["left"], index(column)))
                    at = builder.gep(self.x, [at])
                    mask = masks.get(column)
                    loaded[column] = (
                        vector.load_masked(at, mask, outside) if mask else vector.load(at)
                    )
            parts = [loaded[column] for column in self._columns(s)]
            value = parts[0]
            if across > 1:
                value = vector.pick(parts, [s % across + across * k for k in range(vector.lanes)])
            if s == 0:
                found = _Reduced(value, first)
            else:
                place = self._numbers(s) if self.places else None
                found = self._take(found, _Reduced(value, place))
        return found

    def _nothing(self, i: int, first: Any) -> _Reduced:
        """Return where output row `i` begins: a maximum of -infinity is at the first tap inside."""
        builder, vector, window = self.builder, self.vector, self.window
        if self.mean:
            return _Reduced(vector.zero)
        lowest = vector.all(float("-inf"))
        if not self.places:
            return _Reduced(lowest)
        top = builder.add(self.values["top"], index(i * window.stride[0]))
        above = builder.icmp_signed("<", top, index(0))
        r = builder.select(above, builder.neg(top), index(0))
        return _Reduced(lowest, builder.add(first, self._spread(builder.shl(r, index(_ROW_BITS)))))

    def _first_column(self) -> Any:
        """Return the first tap of each window that is not in the margin before the plane."""
        builder, window, lanes = self.builder, self.window, self.vector.lanes
        steps = ir.Constant(
            ir.VectorType(self.number, lanes), [k * window.stride[1] for k in range(lanes)]
        )
        column = builder.add(self._spread(self.values["left"]), steps)
        first = self._numbers(0)
        for s in range(1, window.S):
            # Tap s - 1 is in the margin.
            before = builder.icmp_signed("<", column, self._numbers(1 - s))
            first = builder.select(before, self._numbers(s), first)
        return first

    def _take(self, old: _Reduced, new: _Reduced) -> _Reduced:
        """Return the sums, or of each lane the larger one and its place, the old if equal."""
        builder = self.builder
        if self.mean:
            return _Reduced(builder.fadd(old.value, new.value))
        larger = builder.fcmp_ordered(">", new.value, old.value)
        missing = builder.fcmp_unordered("uno", new.value, new.value)
        if self.places:
            wins = builder.or_(larger, missing)
            value = builder.select(wins, new.value, old.value)
            return _Reduced(value, builder.select(wins, new.place, old.place))
        # In this form the first choice is one instruction, the processor's maximum.
        value = builder.select(larger, new.value, old.value)
        return _Reduced(builder.select(missing, new.value, value))

    def _store(self, i: int, reduced: _Reduced, masked: bool) -> None:
        """Store output row `i`."""
        builder, vector, values = self.builder, self.vector, self.values
        mask = vector.within(index(0), values["columns"]) if masked else None
        value = reduced.value
        if self.mean:
            rows, columns = (
                builder.inttoptr(values[name], self.element.as_pointer())
                for name in ("row_divisors", "column_divisors")
            )
            row = vector.broadcast(builder.load(builder.gep(rows, [index(i)])))
            across = (
                vector.load_masked(columns, mask, vector.all(1.0)) if mask else vector.load(columns)
            )
            value = builder.fdiv(value, builder.fmul(row, across))
        passes = None
        if self.rectified:  # NaN stays NaN
            passes = builder.fcmp_unordered(">", value, vector.zero)
            value = builder.select(passes, value, vector.zero)
        out = builder.inttoptr(values["out"], self.element.as_pointer())
        offset = builder.mul(values["out_row"], index(i))
        self._store_vector(vector, value, builder.gep(out, [offset]), mask)
        if self.places == BYTES:
            self._store_bytes(i, reduced.place, passes)
        elif self.places == INDICES:
            self._store_indices(i, reduced.place, offset, mask)

    def _store_vector(self, vector: Vectors, value: Any, at: Any, mask: Any) -> None:
        if mask is None:
            vector.store(value, at)
        else:
            vector.store_masked(value, at, mask)

    def _store_bytes(self, i: int, place: Any, passes: Any) -> None:
        """Store a whole vector of bytes: rows of places have room for that."""
        builder, lanes = self.builder, self.vector.lanes
        byte = ir.IntType(8)
        r, s = self._row_and_column(place)
        place = builder.add(builder.mul(r, self._numbers(self.window.S)), s)
        if passes:
            place = builder.select(passes, place, self._numbers(NOWHERE))
        offset = builder.mul(self.values["place_row"], index(i))
        at = builder.inttoptr(self.values["places"], byte.as_pointer())
        at = builder.gep(at, [offset])
        small = ir.VectorType(byte, lanes)
        at = builder.bitcast(at, small.as_pointer())
        builder.store(builder.trunc(place, small), at, align=1)

    def _store_indices(self, i: int, place: Any, offset: Any, mask: Any) -> None:
        """Store ``h * width + w`` as int64."""
        builder, window, values, lanes = self.builder, self.window, self.values, self.vector.lanes
        wide = Vectors(builder, I64, lanes)
        r, s = (
            part if self.number == I64 else builder.zext(part, wide.type)
            for part in self._row_and_column(place)
        )
        down, across = window.stride
        top = builder.add(values["top"], index(i * down))
        corner = builder.add(builder.mul(top, values["width"]), values["left"])
        steps = ir.Constant(wide.type, [k * across for k in range(lanes)])
        flat = builder.add(builder.add(wide.broadcast(corner), steps), s)
        flat = builder.add(flat, builder.mul(r, wide.broadcast(values["width"])))
        at = builder.gep(builder.inttoptr(values["places"], I64.as_pointer()), [offset])
        self._store_vector(wide, flat, at, mask)

    def _row_and_column(self, place: Any) -> tuple[Any, Any]:
        builder = self.builder
        r = builder.lshr(place, self._numbers(_ROW_BITS))
        return r, builder.and_(place, self._numbers((1 << _ROW_BITS) - 1))

    def _numbers(self, value: int) -> Any:
        """Return a constant vector of integers as wide as the elements."""
        lanes = self.vector.lanes
        return ir.Constant(ir.VectorType(self.number, lanes), [value] * lanes)

    def _spread(self, value: Any) -> Any:
        """Return a 64-bit integer in all lanes."""
        value = self.builder.trunc(value, self.number) if self.number != I64 else value
        kind = ir.VectorType(self.number, self.vector.lanes)
        one = self.builder.insert_element(
            ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0)
        )
        return self.vector.shuffle(one, one, [0] * self.vector.lanes)


def both_ways(builder: Any, whole: Any, write: Any) -> None:
    """Call ``write(masked)``: twice, for `whole` vectors and for others, where masks are slow."""
    if cpu.describe().instructions.masks:
        write(True)
        return
    with builder.if_else(whole) as (then, otherwise):
        with then:
            write(False)
        with otherwise:
            write(True)


def merge(builder: Any, values: list[tuple[Any, Any]]) -> Any:
    """Return which of some values it is, by the block that the code came from."""
    merged = builder.phi(values[0][0].type)
    for value, block in values:
        merged.add_incoming(value, block)
    return merged
