"""The weight-gradient microkernel for 1x1 kernels: inner products of planes.

The gradient of one weight is the inner product of an input plane and an output-gradient plane,
over all images::

    for n in range(images):
        for p in range(pixels):
            for i in range(rows):
                for j in range(columns):
                    sums[i, j] += a[n, i, p] * b[n, j, p]

A is streamed from memory and prefetched; B stays in L2.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.sums_over_pixels import SumsOverPixels
from fastconv.codegen.vector import prefetch, vectors

#: The arguments: addresses of A, B and the sums; the number of images; the image strides and plane
#: strides of A and B in elements; the number of pixels; whether this is the first call, which
#: writes the sums instead of adding to them; the prefetch distance in A.
ARGUMENTS = (
    *("a", "b", "sums", "images", "a_image", "b_image", "a_plane", "b_plane"),
    *("pixels", "first", "ahead"),
)


class Direct1x1WeightGradMicrokernel:
    """Computes the inner products of `rows` planes of A and `columns` planes of B."""

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any) -> None:
        self.builder, self.size, self.v = builder, bits // 8, v
        self.vector = vectors(builder, bits, lanes)

    def emit(self, rows: int, columns: int) -> None:
        """Emit the microkernel."""
        builder, vector, v = self.builder, self.vector, self.v
        sums = SumsOverPixels(vector, rows * columns)
        left = v.pixels % vector.lanes
        whole = v.pixels - left
        with counted(builder, 0, v.images) as n:
            a, b = v.a + n * v.a_image * self.size, v.b + n * v.b_image * self.size
            with counted(builder, 0, whole, vector.lanes) as pixel:
                offset = pixel * self.size
                prefetch(builder, pointer_to(vector, a + offset, v.ahead), level=2)
                self._step(a + offset, b + offset, sums, (rows, columns), None)
            with builder.if_then(left.compare(">", 0)):
                offset, mask = whole * self.size, vector.first(left.value)
                self._step(a + offset, b + offset, sums, (rows, columns), mask)
        sums.store(v.sums, v.first)

    def _step(
        self, a: Integer, b: Integer, sums: SumsOverPixels, shape: tuple[int, int], mask: Any
    ) -> None:
        """Add the products of one vector of pixels, masked if there is a mask."""
        vector, v, (rows, columns) = self.vector, self.v, shape

        def load(plane: Integer, distance: Integer) -> Any:
            return vector.load(pointer_to(vector, plane, distance), mask)

        factors = [load(a, v.a_plane * i) for i in range(rows)]
        for j in range(columns):
            value = load(b, v.b_plane * j)
            for i, factor in enumerate(factors):
                sums.add_product(i * columns + j, factor, value)
