"""Average pooling with windows of any size, one window row at a time, and its backward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.integers import Integer, counted
from fastconv.codegen.vector import I64, Vectors, index


def entry(table: Integer, number: Integer) -> Integer:
    """Return element `number` of an array of int64 at an address."""
    builder = table.builder
    array = builder.inttoptr(table.value, I64.as_pointer())
    return Integer(builder, builder.load(builder.gep(array, [number.value])))


class _Tile:
    """Base class: vectors along rows."""

    def __init__(self, builder: Any, bits: int, lanes: int) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)

    def pointer(self, address: Integer) -> Any:
        """Return an address as a pointer to elements."""
        return self.builder.inttoptr(address.value, self.vector.element.as_pointer())

    def add_to(self, variable: Any, value: Any) -> None:
        """Add to a variable."""
        self.builder.store(self.builder.fadd(self.builder.load(variable), value), variable)


class LargeMean(_Tile):
    """The mean of one window."""

    def total(self, source: Integer, row_size: Integer, rows: Integer, columns: Integer) -> Any:
        """Return the sum of `rows` rows of `columns` elements, with row stride `row_size`."""
        builder, vector = self.builder, self.vector
        sums = cgutils.alloca_once_value(builder, vector.zero)
        with counted(builder, 0, rows) as row:
            line = vector.at(self.pointer(source), (row * row_size).value)
            with counted(builder, 0, columns, vector.lanes) as k:
                mask = vector.within(index(0), (columns - k).value)
                self.add_to(sums, vector.load_masked(vector.at(line, k.value), mask))
        values, width = builder.load(sums), vector.lanes
        while width > 1:  # add the halves
            width //= 2
            picks = [(k + width) % vector.lanes for k in range(vector.lanes)]
            values = builder.fadd(values, vector.shuffle(values, values, picks))
        return builder.extract_element(values, index(0))

    def store(self, total: Any, row_divisor: Integer, column_divisor: Integer, to: Integer) -> None:
        """Store a sum, divided by the product of the divisors at two addresses."""
        builder = self.builder
        row, column = (builder.load(self.pointer(at)) for at in (row_divisor, column_divisor))
        builder.store(builder.fdiv(total, builder.fmul(row, column)), self.pointer(to))


class LargeMeanGrad(_Tile):
    """Several vectors of one input-gradient row; `grad` is the address of the output-grad plane."""

    def __init__(
        self, builder: Any, bits: int, lanes: int, values: SimpleNamespace, grad: Integer
    ) -> None:
        super().__init__(builder, bits, lanes)
        self.v, self.grad = values, self.pointer(grad)
        self.row_divisors, self.column_divisors = (
            self.pointer(table) for table in (values.row_divisors, values.column_divisors)
        )

    def emit(self, first: Integer, last: Integer, k: Integer, vectors: int, to: Integer) -> None:
        """Store elements ``k : k + vectors * lanes`` of the row at `to`.

        Window rows `first` to `last` contain this input row. Each window column's contribution is
        computed once for all vectors.
        """
        builder, vector, v = self.builder, self.vector, self.v
        starts = [k + number * vector.lanes for number in range(vectors)]
        sums = [cgutils.alloca_once_value(builder, vector.zero) for _ in starts]
        with counted(builder, 0, v.OW) as j:
            begin, end = entry(v.left, j), entry(v.right, j)
            meets = builder.and_(
                begin.compare("<", k + vectors * vector.lanes), end.compare(">", k)
            )
            with builder.if_then(meets):
                contribution = vector.broadcast(self._contribution(first, last, j))
                for start, total in zip(starts, sums, strict=True):
                    inside = vector.within((start - begin).value, (end - begin).value)
                    old = builder.load(total)
                    new = builder.fadd(old, contribution)
                    builder.store(builder.select(inside, new, old), total)
        for start, total in zip(starts, sums, strict=True):
            mask = vector.within(start.value, v.W.value)
            at = vector.at(self.pointer(to), start.value)
            vector.store_masked(builder.load(total), at, mask)

    def _contribution(self, first: Integer, last: Integer, j: Integer) -> Any:
        """Return the sum of the gradients of windows (i, j), each divided by its divisors."""
        builder, vector = self.builder, self.vector
        total = cgutils.alloca_once_value(builder, vector.element(0.0))
        divisor = builder.load(vector.at(self.column_divisors, j.value))
        with counted(builder, first, last) as i:
            grad = builder.load(vector.at(self.grad, (i * self.v.OW + j).value))
            row = builder.load(vector.at(self.row_divisors, i.value))
            self.add_to(total, builder.fdiv(grad, builder.fmul(row, divisor)))
        return builder.load(total)
