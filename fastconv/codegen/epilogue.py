"""The epilogue of a microkernel: scale, residual, activation, store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue_activation import activate, activated
from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.vector import Vectors, index, prefetch, updated_if
from fastconv.core.activation import CLAMP


class Epilogue:
    """Applies the fused operations to the sums and stores them.

    Parameters
    ----------
    vector : Vectors
    out, residual, numbers : integers
        Addresses of the tile's first output, of the same element of the residual or 0, and of the
        activation's parameters.
    form : integer
        The activation's form.
    out_row, out_plane : integers
        Row stride and channel stride of the output, in elements.
    spacing : int
        Column stride of the output, in elements; the elements between are not written. If it is
        more than 1, there is no residual.
    scales : sequence of LLVM values, optional
        A vector for each output channel of the tile that scales its sums, as for quantized
        products.
    """

    def __init__(
        self,
        vector: Vectors,
        out: Any,
        residual: Any,
        numbers: Any,
        form: Any,
        out_row: Any,
        out_plane: Any,
        spacing: int = 1,
        scales: Sequence[Any] | None = None,
    ) -> None:
        builder = vector.builder
        self.vector, self.spacing, self._scales = vector, spacing, scales
        self.form, self.out_row, self.out_plane = (
            Integer(builder, number) for number in (form, out_row, out_plane)
        )
        self.out, self.residual, self._numbers = (
            pointer_to(vector, address) for address in (out, residual, numbers)
        )
        self.has_residual = Integer(builder, residual).compare("!=", 0)
        self.low, self.high, self.slope = (
            vector.broadcast(builder.load(vector.at(self._numbers, number))) for number in range(3)
        )

    def scaled(self, sums: list[Any], positions: int) -> list[Any]:
        """Return the sums times the scales of their channels, ``sums[channel * positions + p]``."""
        if self._scales is None:
            return sums
        scales, fmul = self._scales, self.vector.builder.fmul
        return [fmul(total, scales[number // positions]) for number, total in enumerate(sums)]

    def activated(self, sums: list[Any]) -> list[Any]:
        """Return the activation of sums that are to be pooled."""
        return activated(self.vector, sums, self._numbers, self.form.value)

    def prefetch_output(self, filters: int, rows: int, columns: int) -> None:
        """Prefetch the cache lines of the output that the tile fills."""
        if self.spacing > 1:
            return
        for k, i in product(range(filters), range(rows)):
            offset = self.out_plane * k + self.out_row * i
            for first in range(0, columns, self.vector.line):
                line = self.vector.at(self.out, offset, first)
                prefetch(self.vector.builder, line, write=True)

    def one(self, total: Any, offset: Any, columns_left: Any = None) -> None:
        """Store a vector at `offset` from the first output, for the columns that remain."""
        builder = self.vector.builder
        masks = None if columns_left is None else self._masks(Integer(builder, columns_left))
        self._fused(total, offset, masks)

    def _fused(self, total: Any, offset: Any, masks: list[Any] | None) -> None:
        """Add the residual, apply the activation, and store."""
        vector, builder = self.vector, self.vector.builder

        def with_residual() -> list[Any]:
            source = vector.at(self.residual, offset)
            added = vector.load(source, masks[0] if masks else None)
            return [builder.fadd(total, added)]

        if self.spacing == 1:
            (total,) = updated_if(builder, self.has_residual, [total], with_residual)
        total = activate(vector, self.form.value, total, self.low, self.high, self.slope)
        self._write(total, vector.at(self.out, offset), masks)

    def _masks(self, columns_left: Integer) -> list[Any]:
        """Return the store masks of the vectors in memory that one vector of pixels covers."""
        vector, end = self.vector, columns_left * self.spacing
        return [
            vector.builder.and_(vector.first(end - part * vector.lanes), self._written(part))
            for part in range(self.spacing)
        ]

    def _written(self, part: int) -> Any:
        return self.vector.mask([n % self.spacing == 0 for n in self._elements(part)])

    def _elements(self, part: int) -> range:
        return range(part * self.vector.lanes, (part + 1) * self.vector.lanes)

    def _write(self, total: Any, out: Any, masks: list[Any] | None) -> None:
        """Store a vector of pixels with a stride of `spacing` elements."""
        vector = self.vector
        if self.spacing == 1 and masks is None:
            vector.store(total, out)
            return
        for part in range(self.spacing):
            picks = [element // self.spacing for element in self._elements(part)]
            spread = vector.shuffle(total, vector.undefined, picks) if self.spacing > 1 else total
            mask = self._written(part) if masks is None else masks[part]
            vector.store(spread, vector.at(out, part * vector.lanes), mask)

    def rows(
        self,
        sums: list[Any],
        positions: list[tuple[int, int]],
        columns: int,
        filters_left: Any,
        columns_left: Any,
    ) -> None:
        """Store vectors of neighbouring pixels: ``sums[filter * len(positions) + position]``.

        A position is a row and a vector in it; `columns` is the width of a whole tile. Fewer output
        channels and columns may remain than the tile has. A whole tile that is only clamped, the
        common case, is stored from registers. Other tiles go through memory, so that the code for
        residual and activation exists once.
        """
        vector, builder, lanes = self.vector, self.vector.builder, self.vector.lanes
        sums, filters = self.scaled(sums, len(positions)), len(sums) // len(positions)
        left = Integer(builder, columns_left)
        across = [self.out_row * i + v * lanes * self.spacing for i, v in positions]
        masks = {v: self._masks(left - v * lanes) for _, v in positions}
        plain = Integer(builder, filters_left).compare(">=", filters)
        for condition in (self.form.compare("==", CLAMP), builder.not_(self.has_residual)):
            plain = builder.and_(plain, condition)
        with builder.if_else(plain) as (then, otherwise):
            with then, builder.if_else(left.compare(">=", columns)) as (unmasked, masked):
                with unmasked:
                    self._straight(sums, positions, across, None)
                with masked:
                    self._straight(sums, positions, across, masks)
            with otherwise:
                kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
                for number, total in enumerate(sums):
                    builder.store(total, vector.at(kept, number))
                with counted(builder, 0, filters_left) as k:
                    for p, (_, v) in enumerate(positions):
                        total = builder.load(vector.at(kept, k * len(positions) + p))
                        self._fused(total, self.out_plane * k + across[p], masks[v])

    def _straight(
        self,
        sums: list[Any],
        positions: list[tuple[int, int]],
        across: list[Any],
        masks: dict[int, list[Any]] | None,
    ) -> None:
        """Clamp and store all sums, each vector of a row where its masks allow."""
        vector = self.vector
        for number, total in enumerate(sums):
            k, p = divmod(number, len(positions))
            out = vector.at(self.out, self.out_plane * k + across[p])
            total = vector.clamp(total, self.low, self.high)
            self._write(total, out, None if masks is None else masks[positions[p][1]])
