"""The microkernel of weight gradients of 1x1 kernels: planes times planes.

The gradient of such a weight is a plane of the input times a plane of the output's gradient, summed
over the pixels of all images::

    for n in range(images):
        for p in range(pixels):
            for i in range(rows):
                for j in range(columns):
                    sums[i, j] += far[n, i, p] * near[n, j, p]

One factor comes from memory far away, and is prefetched.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer, counted, integers, pointer_to
from fastconv.codegen.sums_over_pixels import SumsOverPixels
from fastconv.codegen.vector import prefetch, vectors

#: What it is called with: addresses of the first plane of either factor in the first image, and of
#: the sums; how many images, and elements from image to image and from plane to plane of either;
#: how many pixels; whether the sums are only written, not added to; and the prefetch distance from
#: the first plane of the far factor.
ARGUMENTS = (
    *("far", "near", "sums", "images", "far_image", "near_image", "far_plane", "near_plane"),
    *("pixels", "first", "ahead"),
)


class PlaneProduct:
    """Writes the products of some planes with some planes."""

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder, self.size, self.values = builder, bits // 8, integers(builder, arguments)
        self.vector = vectors(builder, bits, lanes)

    def emit(self, rows: int, columns: int) -> None:
        """Write all instructions."""
        builder, vector, v = self.builder, self.vector, self.values
        sums = SumsOverPixels(vector, rows * columns)
        left = v.pixels % vector.lanes
        whole = v.pixels - left
        with counted(builder, 0, v.images) as n:
            far, near = v.far + n * v.far_image * self.size, v.near + n * v.near_image * self.size
            with counted(builder, 0, whole, vector.lanes) as pixel:
                offset = pixel * self.size
                prefetch(builder, pointer_to(vector, far + offset, v.ahead), level=2)
                self._step(far + offset, near + offset, sums, (rows, columns), None)
            with builder.if_then(left.compare(">", 0)):
                offset, mask = whole * self.size, vector.first(left.value)
                self._step(far + offset, near + offset, sums, (rows, columns), mask)
        sums.store(v.sums, v.first)

    def _step(
        self, far: Integer, near: Integer, sums: SumsOverPixels, shape: tuple[int, int], mask: Any
    ) -> None:
        """Add the products of one vector of pixels; of some of them, if there is a mask."""
        vector, v, (rows, columns) = self.vector, self.values, shape

        def load(plane: Integer, distance: Integer) -> Any:
            pointer = pointer_to(vector, plane, distance)
            return vector.load(pointer) if mask is None else vector.load_masked(pointer, mask)

        factors = [load(far, v.far_plane * i) for i in range(rows)]
        for j in range(columns):
            value = load(near, v.near_plane * j)
            for i, factor in enumerate(factors):
                sums.add_product(i * columns + j, factor, value)
