"""The way out of the registers: residual, activation, and the store itself."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastconv.activation import CLAMP
from fastconv.codegen.activation import activate
from fastconv.codegen.vector import Vectors, index


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
    ) -> None:
        self.vector, self.form = vector, form
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

    def one(self, total: Any, offset: Any, mask: Any = None) -> None:
        """Store a vector `offset` elements behind the block's begin, where `mask` allows."""
        vector, builder = self.vector, self.vector.builder
        before = builder.block
        with builder.if_then(self.has_residual):
            place = builder.gep(self.residual, [offset])
            added = vector.load(place) if mask is None else vector.load_masked(place, mask)
            with_residual = builder.fadd(total, added)
            inside = builder.block
        merged = builder.phi(vector.type)
        merged.add_incoming(total, before)
        merged.add_incoming(with_residual, inside)
        merged = activate(vector, self.form, merged, self.low, self.high, self.slope)
        place = builder.gep(self.out, [offset])
        if mask is None:
            vector.store(merged, place)
        else:
            vector.store_masked(merged, place, mask)

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
            builder.add(builder.mul(self.out_row, index(i)), index(v * lanes)) for i, v in places
        ]
        masks = {v: vector.first(builder.sub(columns_left, index(v * lanes))) for _, v in places}
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
                        self.one(total, builder.add(plane, across[p]), masks[v])

    def _straight(
        self,
        sums: list[Any],
        places: list[tuple[int, int]],
        across: list[Any],
        masks: dict[int, Any] | None,
    ) -> None:
        """Clamp and store all sums, each vector of a row where its mask allows."""
        vector, builder = self.vector, self.vector.builder
        for number, total in enumerate(sums):
            k, p = divmod(number, len(places))
            offset = builder.add(builder.mul(self.out_plane, index(k)), across[p])
            total, place = vector.clamp(total, self.low, self.high), builder.gep(self.out, [offset])
            if masks is None:
                vector.store(total, place)
            else:
                vector.store_masked(total, place, masks[places[p][1]])
