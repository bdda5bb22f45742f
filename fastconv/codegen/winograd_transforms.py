"""Winograd transforms as vector code, a vector of tiles at a time.

There are three: of inputs, weights and outputs. Each multiplies a small matrix by the columns and
then the rows of a tile. A vector holds one element of as many tiles as it has lanes, so there are
no shuffles::

    inputs    (m + r - 1)^2 -> (m + r - 1)^2      B d B^T
    weights             r^2 -> (m + r - 1)^2      G g G^T
    outputs   (m + r - 1)^2 -> m^2                A p A^T

So image rows are deinterleaved first, columns 0, m, 2 * m, ... together (`RowScatter`), and output
rows are interleaved at the end (`interleave_row`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from fastconv.codegen.constant_matrix import times
from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.epilogue_activation import activated
from fastconv.codegen.epilogue_max_pool import largest
from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.vector import Vectors, index, vectors
from fastconv.codegen.winograd_matrices import Matrix, winograd

Load = Callable[[int, int], Any]
Keep = Callable[[int, int, Any], None]


class Form(NamedTuple):
    """The form of a transform: outputs of a tile and taps along one axis, bits and lanes."""

    m: int
    r: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernels' name; docs/kernels.md has the grammar."""
        return f"f{self.bits}x{self.lanes}-m{self.m}r{self.r}"

    @property
    def alpha(self) -> int:
        """The side of a transformed tile."""
        return self.m + self.r - 1


def transform_2d(vector: Vectors, matrix: Matrix, load: Load, keep: Keep) -> None:
    """Emit ``T X T^T``: `load` returns the elements of X, `keep` stores those of the result."""
    size = len(matrix[0])
    columns = [times(vector, matrix, [load(i, j) for i in range(size)]) for j in range(size)]
    for i in range(len(matrix)):
        for j, value in enumerate(times(vector, matrix, [column[i] for column in columns])):
            keep(i, j, value)


class Transforms:
    """Emits the transforms of one form; all addresses are `Integer`."""

    def __init__(self, builder: Any, form: Form) -> None:
        self.builder, self.m, self.r, self.alpha = builder, form.m, form.r, form.alpha
        self.vector = vectors(builder, form.bits, form.lanes)
        self.matrices = winograd(form.m, form.r)

    def inputs(
        self, source: Integer, target: Integer, plane: Integer, across: Integer, stride: Integer
    ) -> None:
        """Transform a vector of tiles that `RowScatter` has deinterleaved.

        Element (i, j) is read from row ``i // m`` of plane ``(i % m) * (m + r - 1) + j``, with
        plane stride `plane` and row stride `across`. Results are stored with stride `stride`.
        """

        def load(i: int, j: int) -> Any:
            offsets = plane * (i % self.m * self.alpha + j), across * (i // self.m)
            return self.vector.load(pointer_to(self.vector, source, *offsets))

        transform_2d(
            self.vector, self.matrices.inputs, load, self._keep(target, stride, self.alpha)
        )

    def weights(
        self, source: Integer, target: Integer, plane: Integer, stride: Integer, count: Integer
    ) -> None:
        """Transform up to `count` filters of one vector, in double precision, rounded once.

        Taps are read with stride `plane`, results are stored with stride `stride`.
        """
        builder, vector = self.builder, self.vector
        double = Vectors(builder, ir.DoubleType(), vector.lanes)
        mask = vector.first(count.value)

        def load(i: int, j: int) -> Any:
            where = pointer_to(vector, source, plane * (i * self.r + j))
            value = vector.load(where, mask)
            return builder.fpext(value, double.type) if vector.bits == 32 else value

        def keep(i: int, j: int, value: Any) -> None:
            value = builder.fptrunc(value, vector.type) if vector.bits == 32 else value
            where = pointer_to(vector, target, stride * (i * self.alpha + j))
            vector.store(value, where, mask)

        transform_2d(double, self.matrices.weights, load, keep)

    def outputs(
        self, source: Integer, target: Integer, bias: Integer, plane: Integer, stride: Integer
    ) -> None:
        """Transform a vector of tiles of products to outputs, and add the bias (an address).

        Products are read with stride `stride`, outputs are stored with stride `plane`.
        """
        self._outputs(source, bias, stride, self._keep(target, plane, self.m))

    def maxima(
        self,
        source: Integer,
        target: Integer,
        bias: Integer,
        activation: tuple[Integer, Integer],
        plane: Integer,
        stride: Integer,
    ) -> None:
        """Do what `outputs` does, apply the activation, and store the maxima over 2 x 2 windows.

        `activation` is the address of its parameters, and its form.
        """
        (numbers, form), half = activation, self.m // 2
        found: dict[tuple[int, int], Any] = {}
        self._outputs(source, bias, stride, lambda i, j, value: found.update({(i, j): value}))
        values = activated(
            self.vector, found.values(), pointer_to(self.vector, numbers), form.value
        )
        ready, keep = dict(zip(found, values, strict=True)), self._keep(target, plane, half)
        for i in range(half):
            for j in range(half):
                window = [ready[2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)]
                keep(i, j, largest(self.vector, *window))

    def _outputs(self, source: Integer, bias: Integer, stride: Integer, keep: Keep) -> None:
        builder, vector = self.builder, self.vector
        added = vector.broadcast(builder.load(pointer_to(vector, bias)))

        def load(i: int, j: int) -> Any:
            return vector.load(pointer_to(vector, source, stride * (i * self.alpha + j)))

        transform_2d(
            vector,
            self.matrices.outputs,
            load,
            lambda i, j, value: keep(i, j, builder.fadd(value, added)),
        )

    def _keep(self, target: Integer, stride: Integer, columns: int) -> Keep:
        """Return a function that stores element (i, j) of rows of `columns`, with a stride."""

        def keep(i: int, j: int, value: Any) -> None:
            self.vector.store(value, pointer_to(self.vector, target, stride * (i * columns + j)))

        return keep


class RowScatter:
    """Emits ``target[j * plane + k] = row[left + k * m + j]`` for j below m + r - 1.

    Columns outside 0 to `width` are zero. Up to one vector beyond the last k is written.
    """

    def __init__(
        self, write: Transforms, target: Integer, row: Integer, width: Integer, plane: Integer
    ) -> None:
        self.builder, self.vector = write.builder, write.vector
        self.m, self.alpha = write.m, write.alpha
        self.target, self.row, self.width, self.plane = target, row, width, plane

    def emit(self, left: Integer, count: Integer) -> None:
        """Emit the loop over k below `count`.

        A few tiles need only two vectors. More tiles need m vectors and a tail: the columns that
        the last tiles share with the next ones.
        """
        builder, vector, lanes = self.builder, self.vector, self.vector.lanes
        few = (2 * lanes - (self.alpha - self.m)) // self.m
        with counted(builder, 0, count, lanes) as k:
            first = left + k * self.m
            with builder.if_else((count - k).compare("<=", few)) as (then, otherwise):
                with then:
                    one, two = self._masked(first, 2)
                    # Half a vector is enough where m is 4, and touches fewer cache lines.
                    room = lanes // 2 if few <= lanes // 2 else lanes
                    for j in range(self.alpha):
                        picks = [min(j + self.m * t, 2 * lanes - 1) for t in range(room)]
                        self._keep(j, k, vector.shuffle(one, two, picks))
                with otherwise:
                    self._many(k, first)

    def _many(self, k: Integer, first: Integer) -> None:
        """Deinterleave a vector of tiles, without masks if all columns are inside."""
        builder, vector = self.builder, self.vector
        columns = [first + v * vector.lanes for v in range(self.m + 1)]
        end = columns[-1] + vector.lanes
        inside = builder.and_(first.compare(">=", 0), end.compare("<=", self.width))
        with builder.if_else(inside) as (whole, partly):
            with whole:
                pointers = [pointer_to(vector, self.row, column) for column in columns]
                self._deinterleaved(k, [vector.load(pointer) for pointer in pointers])
            with partly:
                self._deinterleaved(k, self._masked(first, self.m + 1))

    def _masked(self, first: Integer, count: int) -> list[Any]:
        """Load contiguous vectors, zeros outside the row."""
        vector, loaded = self.vector, []
        for column in (first + v * vector.lanes for v in range(count)):
            mask = vector.within(column.value, self.width.value)
            loaded.append(vector.load(pointer_to(vector, self.row, column), mask))
        return loaded

    def _deinterleaved(self, k: Integer, loaded: list[Any]) -> None:
        """Deinterleave m vectors; column j + m is column j shifted by one lane."""
        vector, lanes, m = self.vector, self.vector.lanes, self.m
        *body, tail = loaded
        columns = vector.deinterleave(body)
        for j in range(self.alpha):
            value, (g, e) = columns[j % m], divmod(j, m)
            if g:
                shifted_in = [lanes + (t + g - lanes) * m + e for t in range(lanes - g, lanes)]
                value = vector.shuffle(value, tail, [*range(g, lanes), *shifted_in])
            self._keep(j, k, value)

    def _keep(self, j: int, k: Integer, value: Any) -> None:
        vector = Vectors(self.builder, self.vector.element, value.type.count)
        vector.store(value, pointer_to(vector, self.target, self.plane * j, k))


def interleave_row(
    vector: Vectors,
    source: Integer,
    plane: Integer,
    count: Integer,
    width: Integer,
    step: int,
    keep: Callable[..., None],
) -> None:
    """Emit ``row[k * step + j] = source[j * plane + k]`` for j below `step`, k below `count`.

    ``keep(value, column)`` stores a vector of the row. For a last, partial vector it also gets the
    number of columns below `width`.
    """
    builder, lanes = vector.builder, vector.lanes
    with counted(builder, 0, count, lanes) as k:
        loaded = [vector.load(pointer_to(vector, source, plane * j, k)) for j in range(step)]
        for v, value in enumerate(vector.interleave(loaded)):
            column = k * step + v * lanes
            left = width - column
            whole = left.compare(">=", lanes)
            with builder.if_then(left.compare(">", 0)), builder.if_else(whole) as (then, otherwise):
                with then:
                    keep(value, column.value)
                with otherwise:
                    keep(value, column.value, left.value)


def store_row(vector: Vectors, out: Integer) -> Callable[..., None]:
    """Return the `keep` of `interleave_row` that stores a row."""

    def keep(value: Any, column: Any, left: Any = None) -> None:
        mask = None if left is None else vector.first(left)
        vector.store(value, pointer_to(vector, out, column), mask)

    return keep


def store_activated_row(
    vector: Vectors, out: Integer, residual: Integer, numbers: Integer, form: Integer
) -> Callable[..., None]:
    """Return the `keep` that stores ``activation(row + residual)``; `residual` may be 0.

    `numbers` is the address of the activation's parameters.
    """
    values = out.value, residual.value, numbers.value, form.value
    return Epilogue(vector, *values, index(0), index(0)).one
