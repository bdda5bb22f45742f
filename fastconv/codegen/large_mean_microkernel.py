"""Average pooling with windows of any size, one window row at a time, and its backward."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastconv.codegen.integers import Integer, counted, integer_at, pointer_to
from fastconv.codegen.vector import index, vectors


class _Tile:
    """Base class: vectors along rows."""

    def __init__(self, builder: Any, bits: int, lanes: int) -> None:
        self.builder, self.vector = builder, vectors(builder, bits, lanes)

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
            line = pointer_to(vector, source, row * row_size)
            with counted(builder, 0, columns, vector.lanes) as k:
                mask = vector.within(0, columns - k)
                self.add_to(sums, vector.load(vector.at(line, k), mask))
        values, width = builder.load(sums), vector.lanes
        while width > 1:  # add the halves
            width //= 2
            picks = [(k + width) % vector.lanes for k in range(vector.lanes)]
            values = builder.fadd(values, vector.shuffle(values, values, picks))
        return builder.extract_element(values, index(0))

    def store(self, total: Any, row_divisor: Integer, column_divisor: Integer, to: Integer) -> None:
        """Store a sum, divided by the product of the divisors at two addresses."""
        builder, vector = self.builder, self.vector
        row, column = (builder.load(pointer_to(vector, at)) for at in (row_divisor, column_divisor))
        builder.store(builder.fdiv(total, builder.fmul(row, column)), pointer_to(vector, to))


class LargeMeanGrad(_Tile):
    """Several vectors of one input-gradient row; `grad` is the address of the output-grad plane."""

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any, grad: Integer) -> None:
        super().__init__(builder, bits, lanes)
        self.v = v
        self.grad, self.row_divisors, self.column_divisors = (
            pointer_to(self.vector, at) for at in (grad, v.row_divisors, v.column_divisors)
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
            begin, end = integer_at(builder, v.left, j), integer_at(builder, v.right, j)
            meets = builder.and_(
                begin.compare("<", k + vectors * vector.lanes), end.compare(">", k)
            )
            with builder.if_then(meets):
                contribution = vector.broadcast(self._contribution(first, last, j))
                for start, total in zip(starts, sums, strict=True):
                    inside = vector.within(start - begin, end - begin)
                    old = builder.load(total)
                    new = builder.fadd(old, contribution)
                    builder.store(builder.select(inside, new, old), total)
        for start, total in zip(starts, sums, strict=True):
            mask = vector.within(start, v.W)
            vector.store(builder.load(total), pointer_to(vector, to, start), mask)

    def _contribution(self, first: Integer, last: Integer, j: Integer) -> Any:
        """Return the sum of the gradients of windows (i, j), each divided by its divisors."""
        builder, vector = self.builder, self.vector
        total = cgutils.alloca_once_value(builder, vector.element(0.0))
        divisor = builder.load(vector.at(self.column_divisors, j))
        with counted(builder, first, last) as i:
            grad = builder.load(vector.at(self.grad, i * self.v.OW + j))
            row = builder.load(vector.at(self.row_divisors, i))
            self.add_to(total, builder.fdiv(grad, builder.fmul(row, divisor)))
        return builder.load(total)
