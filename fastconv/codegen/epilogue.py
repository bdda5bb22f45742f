"""The epilogue of a microkernel: scale, residual, activation, and the store itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue_activation import activate, activated
from fastconv.codegen.vector import Vectors, index, prefetch
from fastconv.core.activation import CLAMP


class Epilogue:
    """Writes sums to memory, with what is fused into it.

    Parameters
    ----------
    vector : Vectors
    out, residual, numbers : LLVM integers
        Addresses: of the tile's first output, of the same element of the residual or 0, and of
        the numbers of the activation.
    form : LLVM integer
        The activation's form.
    out_row, out_plane : LLVM integers
        Elements from one row, and from one channel, of the output to the next.
    spacing : int
        Elements from one pixel to the next; what is between stays as it is. If it is more than 1,
        nothing is read of the residual.
    scales : sequence of LLVM values, optional
        A vector for each output channel of the tile by which its sums are multiplied first, as
        sums of quantized products are. Without it nothing is written for it.
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
        self.vector, self.form, self.spacing, self._scales = vector, form, spacing, scales
        self.out_row, self.out_plane = out_row, out_plane
        builder = vector.builder
        self.out, self.residual, self._numbers = (
            builder.inttoptr(address, vector.element.as_pointer())
            for address in (out, residual, numbers)
        )
        self.has_residual = builder.icmp_signed("!=", residual, index(0))
        self.low, self.high, self.slope = (
            vector.broadcast(builder.load(builder.gep(self._numbers, [index(number)])))
            for number in range(3)
        )

    def scaled(self, sums: list[Any], positions: int) -> list[Any]:
        """Return the sums times the scales of their channels, ``sums[channel * positions + p]``."""
        if self._scales is None:
            return sums
        scales, fmul = self._scales, self.vector.builder.fmul
        return [fmul(total, scales[number // positions]) for number, total in enumerate(sums)]

    def activated(self, sums: list[Any]) -> list[Any]:
        """Return the activation of sums that are not stored as they are."""
        return activated(self.vector, sums, self._numbers, self.form)

    def prefetch_output(self, filters: int, rows: int, columns: int) -> None:
        """Prefetch the cache lines that a tile will be stored to, if it fills them."""
        if self.spacing > 1:
            return
        builder, line = self.vector.builder, self.vector.line
        for k, i in product(range(filters), range(rows)):
            offset = builder.add(
                builder.mul(self.out_plane, index(k)), builder.mul(self.out_row, index(i))
            )
            for first in range(0, columns, line):
                prefetch(builder, self.vector.at(self.out, offset, index(first)), write=True)

    def one(self, total: Any, offset: Any, columns_left: Any = None) -> None:
        """Store a vector `offset` elements behind the first output, as far as columns are left."""
        masks = None if columns_left is None else self._masks(columns_left)
        self._fused(total, offset, masks)

    def _fused(self, total: Any, offset: Any, masks: list[Any] | None) -> None:
        """Add the residual, apply the activation, and store."""
        vector, builder = self.vector, self.vector.builder
        if self.spacing == 1:
            before = builder.block
            with builder.if_then(self.has_residual):
                source = builder.gep(self.residual, [offset])
                added = vector.load_masked(source, masks[0]) if masks else vector.load(source)
                with_residual = builder.fadd(total, added)
                inside = builder.block
            merged = builder.phi(vector.type)
            merged.add_incoming(total, before)
            merged.add_incoming(with_residual, inside)
            total = merged
        total = activate(vector, self.form, total, self.low, self.high, self.slope)
        self._write(total, builder.gep(self.out, [offset]), masks)

    def _masks(self, columns_left: Any) -> list[Any]:
        """Return where to write each vector of memory that a vector of pixels is spread over."""
        vector, builder, spacing = self.vector, self.vector.builder, self.spacing
        end = builder.mul(columns_left, index(spacing))
        return [
            builder.and_(
                vector.first(builder.sub(end, index(part * vector.lanes))),
                vector.mask([element % spacing == 0 for element in self._elements(part)]),
            )
            for part in range(spacing)
        ]

    def _elements(self, part: int) -> range:
        return range(part * self.vector.lanes, (part + 1) * self.vector.lanes)

    def _write(self, total: Any, out: Any, masks: list[Any] | None) -> None:
        """Write a vector of pixels to memory, `spacing` elements from one another."""
        vector = self.vector
        for part in range(self.spacing):
            picks = [element // self.spacing for element in self._elements(part)]
            spread = vector.shuffle(total, vector.undefined, picks) if self.spacing > 1 else total
            to = vector.at(out, index(part * vector.lanes))
            if masks is not None:
                vector.store_masked(spread, to, masks[part])
            elif self.spacing == 1:
                vector.store(spread, to)
            else:
                wanted = vector.mask([n % self.spacing == 0 for n in self._elements(part)])
                vector.store_masked(spread, to, wanted)

    def rows(
        self,
        sums: list[Any],
        positions: list[tuple[int, int]],
        columns: int,
        filters_left: Any,
        columns_left: Any,
    ) -> None:
        """Store vectors of neighbouring pixels: ``sums[filter * len(positions) + position]``.

        A position is a row and a vector in it; `columns` is the width of a whole tile. Of filters
        and columns there may be fewer left than the tile has. All filters of a tile that are only
        clamped, the common case, go straight from their registers; others through memory, so that
        the code for all that may happen to a vector exists once.
        """
        vector, builder, lanes = self.vector, self.vector.builder, self.vector.lanes
        sums, filters = self.scaled(sums, len(positions)), len(sums) // len(positions)
        across = [
            builder.add(builder.mul(self.out_row, index(i)), index(v * lanes * self.spacing))
            for i, v in positions
        ]
        masks = {v: self._masks(builder.sub(columns_left, index(v * lanes))) for _, v in positions}
        plain = builder.icmp_signed(">=", filters_left, index(filters))
        for condition in (
            builder.icmp_signed("==", self.form, index(CLAMP)),
            builder.not_(self.has_residual),
        ):
            plain = builder.and_(plain, condition)
        whole = builder.icmp_signed(">=", columns_left, index(columns))
        with builder.if_else(plain) as (then, otherwise):
            with then, builder.if_else(whole) as (unmasked, masked):
                with unmasked:
                    self._straight(sums, positions, across, None)
                with masked:
                    self._straight(sums, positions, across, masks)
            with otherwise:
                kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
                for number, total in enumerate(sums):
                    builder.store(total, builder.gep(kept, [index(number)]))
                with cgutils.for_range(builder, filters_left) as loop:
                    first = builder.mul(loop.index, index(len(positions)))
                    plane = builder.mul(loop.index, self.out_plane)
                    for p, (_, v) in enumerate(positions):
                        total = builder.load(builder.gep(kept, [builder.add(first, index(p))]))
                        self._fused(total, builder.add(plane, across[p]), masks[v])

    def _straight(
        self,
        sums: list[Any],
        positions: list[tuple[int, int]],
        across: list[Any],
        masks: dict[int, list[Any]] | None,
    ) -> None:
        """Clamp and store all sums, each vector of a row where its masks allow."""
        vector, builder = self.vector, self.vector.builder
        for number, total in enumerate(sums):
            k, p = divmod(number, len(positions))
            offset = builder.add(builder.mul(self.out_plane, index(k)), across[p])
            total, out = vector.clamp(total, self.low, self.high), builder.gep(self.out, [offset])
            self._write(total, out, None if masks is None else masks[positions[p][1]])
