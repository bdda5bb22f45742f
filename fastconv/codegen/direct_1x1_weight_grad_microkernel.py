"""The tile of weight gradients of 1x1 kernels: planes times planes, with pixels in the lanes.

The gradient of such a weight is a plane of the input times a plane of the output's gradient, summed
over the pixels of all images. Both lie in memory as they are wanted::

    for n in range(images):
        for p in range(pixels):
            for i in range(rows):
                for j in range(columns):
                    sums[i, j] += far[n, i, p] * near[n, j, p]

Each lane has sums of its own, which are added up once at the end. One factor comes from memory far
away, and is asked for beforehand.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.vector import Vectors, index, prefetch

#: What a tile is called with, as 64-bit integers: addresses of the first plane of either factor in
#: the first image, and of the sums; how many images, and elements from image to image and from
#: plane to plane of either; how many pixels; whether the sums are only written, not added to; and
#: how far behind the first plane of the far factor one lies that will be wanted.
ARGUMENTS = (
    *("far", "near", "sums", "images", "far_image", "near_image", "far_plane", "near_plane"),
    *("pixels", "first", "ahead"),
)


class PlaneProduct:
    """Writes one tile of some planes times some planes."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder = builder
        element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = Vectors(builder, element, lanes)
        self.values = arguments
        self.far, self.near, self.sums = (
            builder.inttoptr(self.values[name], element.as_pointer())
            for name in ("far", "near", "sums")
        )

    def emit(self, rows: int, columns: int) -> None:
        """Write the whole tile."""
        builder, vector, v = self.builder, self.vector, self.values
        # Registers, once the optimizer has seen that nothing else touches them.
        totals = [cgutils.alloca_once(builder, vector.type) for _ in range(rows * columns)]
        for total in totals:
            builder.store(vector.zero, total)
        whole = builder.and_(v["pixels"], index(-vector.lanes))
        left = builder.sub(v["pixels"], whole)
        with cgutils.for_range(builder, v["images"]) as images:
            far = vector.at(self.far, builder.mul(images.index, v["far_image"]))
            near = vector.at(self.near, builder.mul(images.index, v["near_image"]))
            lanes = index(vector.lanes)
            with cgutils.for_range_slice(builder, index(0), whole, lanes) as (pixel, _):
                self._step(vector.at(far, pixel), vector.at(near, pixel), totals, columns, None)
            with builder.if_then(builder.icmp_signed(">", left, index(0))):
                mask = vector.first(left)
                self._step(vector.at(far, whole), vector.at(near, whole), totals, columns, mask)
        self._add([builder.load(total) for total in totals])

    def _step(self, far: Any, near: Any, totals: list[Any], columns: int, mask: Any) -> None:
        """Add the products of one vector of pixels; of some of them, if there is a mask."""
        builder, vector, v = self.builder, self.vector, self.values

        def load(place: Any) -> Any:
            return vector.load(place) if mask is None else vector.load_masked(place, mask)

        if mask is None:
            prefetch(builder, vector.at(far, v["ahead"]), level=2)
        factors = [
            load(vector.at(far, builder.mul(v["far_plane"], index(i))))
            for i in range(len(totals) // columns)
        ]
        for j in range(columns):
            value = load(vector.at(near, builder.mul(v["near_plane"], index(j))))
            for factor, total in zip(factors, totals[j::columns], strict=True):
                product = vector.multiply_add(factor, value, builder.load(total))
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
