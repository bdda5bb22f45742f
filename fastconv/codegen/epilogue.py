"""The way out of the registers: residual, activation, and the store itself."""

from __future__ import annotations

from itertools import product
from typing import Any

from numba.core import cgutils

from fastconv.codegen.epilogue_activation import activate
from fastconv.codegen.vector import Vectors, index, prefetch
from fastconv.core.activation import CLAMP


class Store:
    """Writes sums to memory, with what is fused into it.

    Parameters
    ----------
    vector : Vectors
    out, residual, numbers : LLVM integers
        Addresses: where the block of output begins, the same place in the residual or 0, and
        the numbers of the activation.
    form : LLVM integer
        The activation's form.
    out_row, out_plane : LLVM integers
        Elements from one row, and from one channel, of the output to the next.
    apart : int
        Elements from one pixel to the next; what is between stays as it is. If it is more than 1,
        nothing is read of the residual.
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
        apart: int = 1,
    ) -> None:
        self.vector, self.form, self.apart = vector, form, apart
        self.out_row, self.out_plane = out_row, out_plane
        builder = vector.builder
        self.out, self.residual, values = (
            builder.inttoptr(address, vector.element.as_pointer())
            for address in (out, residual, numbers)
        )
        self.has_residual = builder.icmp_signed("!=", residual, index(0))
        self.low, self.high, self.slope = (
            vector.broadcast(builder.load(builder.gep(values, [index(place)])))
            for place in range(3)
        )

    def fetch(self, filters: int, rows: int, columns: int) -> None:
        """Ask for the lines that a tile will be stored to, if it fills them."""
        if self.apart > 1:
            return
        builder, line = self.vector.builder, 512 // self.vector.bits
        for k, i in product(range(filters), range(rows)):
            offset = builder.add(
                builder.mul(self.out_plane, index(k)), builder.mul(self.out_row, index(i))
            )
            for first in range(0, columns, line):
                place = self.vector.at(self.out, offset, index(first))
                prefetch(builder, place, write=True)

    def one(self, total: Any, offset: Any, columns_left: Any = None) -> None:
        """Store a vector `offset` elements behind the block's begin, as far as columns are left."""
        masks = None if columns_left is None else self._masks(columns_left)
        self._fused(total, offset, masks)

    def _fused(self, total: Any, offset: Any, masks: list[Any] | None) -> None:
        """Add the residual, apply the activation, and store."""
        vector, builder = self.vector, self.vector.builder
        if self.apart == 1:
            before = builder.block
            with builder.if_then(self.has_residual):
                place = builder.gep(self.residual, [offset])
                added = vector.load_masked(place, masks[0]) if masks else vector.load(place)
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
        vector, builder, apart = self.vector, self.vector.builder, self.apart
        end = builder.mul(columns_left, index(apart))
        return [
            builder.and_(
                vector.first(builder.sub(end, index(part * vector.lanes))),
                vector.mask([place % apart == 0 for place in self._places(part)]),
            )
            for part in range(apart)
        ]

    def _places(self, part: int) -> range:
        return range(part * self.vector.lanes, (part + 1) * self.vector.lanes)

    def _write(self, total: Any, place: Any, masks: list[Any] | None) -> None:
        """Write a vector of pixels to memory, `apart` elements from one another."""
        vector = self.vector
        for part in range(self.apart):
            picks = [number // self.apart for number in self._places(part)]
            spread = vector.shuffle(total, vector.undefined, picks) if self.apart > 1 else total
            to = vector.at(place, index(part * vector.lanes))
            if masks is not None:
                vector.store_masked(spread, to, masks[part])
            elif self.apart == 1:
                vector.store(spread, to)
            else:
                wanted = vector.mask([n % self.apart == 0 for n in self._places(part)])
                vector.store_masked(spread, to, wanted)

    def rows(
        self,
        sums: list[Any],
        places: list[tuple[int, int]],
        columns: int,
        filters_left: Any,
        columns_left: Any,
    ) -> None:
        """Store vectors of neighbouring pixels: ``sums[filter * len(places) + place]``.

        A place is a row and a vector in it; `columns` is the width of a whole tile. Of filters
        and columns there may be fewer left than the tile has. All filters of a tile that are only
        clamped, the common case, go straight from their registers; others by way of memory, so
        that the code for all that may happen to a vector is there once.
        """
        vector, builder, lanes = self.vector, self.vector.builder, self.vector.lanes
        filters = len(sums) // len(places)
        across = [
            builder.add(builder.mul(self.out_row, index(i)), index(v * lanes * self.apart))
            for i, v in places
        ]
        masks = {v: self._masks(builder.sub(columns_left, index(v * lanes))) for _, v in places}
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
                    self._straight(sums, places, across, None)
                with masked:
                    self._straight(sums, places, across, masks)
            with otherwise:
                kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
                for number, total in enumerate(sums):
                    builder.store(total, builder.gep(kept, [index(number)]))
                with cgutils.for_range(builder, filters_left) as loop:
                    first = builder.mul(loop.index, index(len(places)))
                    plane = builder.mul(loop.index, self.out_plane)
                    for p, (_, v) in enumerate(places):
                        total = builder.load(builder.gep(kept, [builder.add(first, index(p))]))
                        self._fused(total, builder.add(plane, across[p]), masks[v])

    def _straight(
        self,
        sums: list[Any],
        places: list[tuple[int, int]],
        across: list[Any],
        masks: dict[int, list[Any]] | None,
    ) -> None:
        """Clamp and store all sums, each vector of a row where its masks allow."""
        vector, builder = self.vector, self.vector.builder
        for number, total in enumerate(sums):
            k, p = divmod(number, len(places))
            offset = builder.add(builder.mul(self.out_plane, index(k)), across[p])
            total, place = vector.clamp(total, self.low, self.high), builder.gep(self.out, [offset])
            self._write(total, place, None if masks is None else masks[places[p][1]])
