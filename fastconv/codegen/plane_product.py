"""The tile of weight gradients of 1x1 kernels: planes times planes, with pixels in the lanes.

The gradient of such a weight is one filter's plane times one channel's, summed over the pixels of
all images. Both lie in memory as they are wanted::

    for n in range(images):
        for p in range(pixels):
            for f, c in the tile:
                sums[f, c] += grad[n, f, p] * x[n, c, p]

Each lane has sums of its own, which are added up once at the end.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.vector import Vectors, index, prefetch

#: What a tile is called with, as 64-bit integers: addresses of the first channel and filter of the
#: first image, and of the sums; how many images, and elements from image to image of both; elements
#: from channel to channel and from filter to filter; how many pixels of a plane; whether the sums
#: are only written, not added to; and how far behind the filters those lie that come next.
ARGUMENTS = (
    *("x", "grad", "sums", "images", "x_image", "grad_image", "x_plane", "grad_plane"),
    *("pixels", "first", "ahead"),
)


class PlaneProduct:
    """Writes one tile of some filters times some channels."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: Any) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.values = dict(zip(ARGUMENTS, arguments, strict=True))
        self.x, self.grad, self.sums = (
            builder.inttoptr(self.values[name], element.as_pointer())
            for name in ("x", "grad", "sums")
        )

    def emit(self, filters: int, channels: int) -> None:
        """Write the whole tile."""
        builder, vector, v = self.builder, self.vector, self.values
        # Registers, once the optimizer has seen that nothing else touches them.
        totals = [cgutils.alloca_once(builder, vector.type) for _ in range(filters * channels)]
        for total in totals:
            builder.store(vector.zero, total)
        whole = builder.and_(v["pixels"], index(-vector.lanes))
        left = builder.sub(v["pixels"], whole)
        with cgutils.for_range(builder, v["images"]) as images:
            n = images.index
            x = vector.at(self.x, builder.mul(n, v["x_image"]))
            grad = vector.at(self.grad, builder.mul(n, v["grad_image"]))
            lanes = index(vector.lanes)
            with cgutils.for_range_slice(builder, index(0), whole, lanes) as (pixel, _):
                self._step(vector.at(x, pixel), vector.at(grad, pixel), totals, channels, None)
            with builder.if_then(builder.icmp_signed(">", left, index(0))):
                mask = vector.first(left)
                self._step(vector.at(x, whole), vector.at(grad, whole), totals, channels, mask)
        self._add([builder.load(total) for total in totals])

    def _step(self, x: Any, grad: Any, totals: list[Any], channels: int, mask: Any) -> None:
        """Add the products of one vector of pixels; of some of them, if there is a mask."""
        builder, vector, v = self.builder, self.vector, self.values

        def load(place: Any) -> Any:
            return vector.load(place) if mask is None else vector.load_masked(place, mask)

        rows = [
            vector.at(grad, builder.mul(v["grad_plane"], index(f)))
            for f in range(len(totals) // channels)
        ]
        grads = [load(row) for row in rows]
        if mask is None:
            for row in rows:
                prefetch(builder, vector.at(row, v["ahead"]), 2)
        for c in range(channels):
            value = load(vector.at(x, builder.mul(v["x_plane"], index(c))))
            for g, total in zip(grads, totals[c::channels], strict=True):
                product = vector.multiply_add(g, value, builder.load(total))
                builder.store(vector.now(product), total)

    def _add(self, totals: list[Any]) -> None:
        """Add each vector's elements up, and the results to the sums."""
        builder, vector = self.builder, self.vector
        for begin in range(0, len(totals), vector.lanes):
            place = vector.at(self.sums, index(begin))
            total = vector.sums(totals[begin : begin + vector.lanes])
            alone = builder.icmp_signed("!=", self.values["first"], index(0))
            with builder.if_else(alone) as (writing, adding):
                with writing:
                    vector.store(total, place)
                with adding:
                    vector.store(builder.fadd(total, vector.load(place)), place)
