"""The tile of weight gradients with pixels in the lanes: a few taps times a few filters.

Each lane adds up its own pixels, for every pair of a tap (c, r, s) and a filter; across the lanes
the sums are added once at the end. So both factors are read where they lie, along their rows, and
nothing is laid out: what suits first layers, depthwise layers and wide maps::

    for n in range(images):
        for i in range(first_row, last_row):
            for j in range(width of the output):
                for f, c, r, s in the tile:
                    sums[f, c, r, s] += grad[n, f, i, j] * x[n, c, i * down + top + r * dilation_h,
                                                             j * step + left + s * dilation_w]

Margins are lanes that masked loads leave at zero; rows in the margin are read from a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.vector import Vectors, index

#: What a tile is called with, as 64-bit integers: addresses of the first channel and filter of the
#: first image, of the sums and of a row of zeros; how many images, and elements from image to
#: image of both; elements from channel to channel and from filter to filter; height and width of a
#: channel and width of a filter's plane; the rows; the place of the first tap; distances of rows,
#: and of taps; and whether the sums are only written, not added to.
ARGUMENTS = (
    *("x", "grad", "sums", "zeros", "images", "x_image", "grad_image", "x_plane", "grad_plane"),
    *("height", "width", "grad_width", "first_row", "last_row", "top", "left", "down"),
    *("dilation_h", "dilation_w", "first"),
)


class Taps(NamedTuple):
    """What a tile computes: filters, channels, and rows and columns of the kernel."""

    filters: int
    channels: int
    rows: int
    columns: int

    @property
    def sums(self) -> int:
        """How many sums that are."""
        return self.filters * self.channels * self.rows * self.columns


class PixelGradient:
    """Writes one tile; its horizontal stride `step` is 1 or 2."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.values = arguments
        self.x, self.grad, self.sums, self.zeros = (
            builder.inttoptr(self.values[name], element.as_pointer())
            for name in ("x", "grad", "sums", "zeros")
        )

    def emit(self, taps: Taps, step: int) -> None:
        """Write the whole tile."""
        builder, vector, v = self.builder, self.vector, self.values
        # Registers, once the optimizer has seen that nothing else touches them.
        totals = [cgutils.alloca_once(builder, vector.type) for _ in range(taps.sums)]
        for total in totals:
            builder.store(vector.zero, total)
        with cgutils.for_range(builder, v["images"]) as images:
            n = images.index
            x = vector.at(self.x, builder.mul(n, v["x_image"]))
            grad = vector.at(self.grad, builder.mul(n, v["grad_image"]))
            lanes = index(vector.lanes)
            with cgutils.for_range_slice(builder, index(0), v["grad_width"], lanes) as (j, _):
                there = vector.within(j, v["grad_width"])
                places = self._places(j, taps.columns, step)
                with cgutils.for_range_slice(builder, v["first_row"], v["last_row"], index(1)) as (
                    i,
                    _,
                ):
                    row = vector.at(grad, builder.mul(i, v["grad_width"]), j)
                    grads = [
                        vector.load_masked(
                            vector.at(row, builder.mul(v["grad_plane"], index(f))), there
                        )
                        for f in range(taps.filters)
                    ]
                    for t, value in enumerate(self._pixels(x, i, taps, step, places)):
                        own = totals[t :: taps.sums // taps.filters]
                        for g, total in zip(grads, own, strict=True):
                            product = vector.multiply_add(g, value, builder.load(total))
                            builder.store(vector.now(product), total)
        self._add([builder.load(total) for total in totals])

    def _places(self, j: Any, columns: int, step: int) -> list[list[tuple[Any, Any]]]:
        """Return of each tap of a row which vectors it needs: their columns and masks.

        Columns behind the last pixel's are left out too: zero times infinity is not zero. At step
        2 two taps share their vectors.
        """
        builder, vector, v = self.builder, self.vector, self.values
        places: list[list[tuple[Any, Any]]] = []
        last = builder.mul(builder.sub(v["grad_width"], index(1)), index(step))
        for s in range(0, columns, step):
            shift = builder.add(v["left"], builder.mul(v["dilation_w"], index(s)))
            begin = builder.add(builder.mul(j, index(step)), shift)
            end = builder.add(last, builder.add(shift, index(step)))
            inside = builder.icmp_signed("<", end, v["width"])
            end = builder.select(inside, end, v["width"])
            none = builder.icmp_signed("<", end, index(0))
            end = builder.select(none, index(0), end)
            parts = [builder.add(begin, index(part * vector.lanes)) for part in range(step)]
            found = [(part, vector.within(part, end)) for part in parts]
            places += [found] * min(step, columns - s)
        return places

    def _pixels(
        self, x: Any, i: Any, taps: Taps, step: int, places: Sequence[list[tuple[Any, Any]]]
    ) -> Iterator[Any]:
        """Give what each tap sees of row `i`, in the order (c, r, s)."""
        builder, vector, v = self.builder, self.vector, self.values
        top = builder.add(builder.mul(i, v["down"]), v["top"])
        for c in range(taps.channels):
            plane = vector.at(x, builder.mul(v["x_plane"], index(c)))
            for r in range(taps.rows):
                h = builder.add(top, builder.mul(v["dilation_h"], index(r)))
                inside = builder.icmp_unsigned("<", h, v["height"])
                row = vector.at(plane, builder.mul(h, v["width"]))
                row = builder.select(inside, row, self.zeros)
                loaded: list[Any] = []
                for s in range(taps.columns):
                    if s % step == 0:
                        loaded = [
                            vector.load_masked(vector.at(row, column), mask)
                            for column, mask in places[s]
                        ]
                    if step == 1:
                        yield loaded[0]
                    else:
                        picks = range(s % 2, 2 * vector.lanes, 2)
                        yield vector.shuffle(loaded[0], loaded[1], picks)

    def _add(self, totals: list[Any]) -> None:
        """Add each vector's elements up, and the results to the sums."""
        builder, vector = self.builder, self.vector
        for begin in range(0, len(totals), vector.lanes):
            some = totals[begin : begin + vector.lanes]
            place = vector.at(self.sums, index(begin))
            total = vector.sums(some)
            with builder.if_else(builder.icmp_signed("!=", self.values["first"], index(0))) as (
                alone,
                adding,
            ):
                with alone:
                    vector.store(total, place)
                with adding:
                    vector.store(builder.fadd(total, vector.load(place)), place)
