"""The weight-gradient microkernel vectorized over output width: a few taps times a few channels.

There is one sum for each pair of a tap (c, r, s) and an output channel. Both factors are read in
place along their rows, which suits first layers, depthwise layers and wide maps::

    for n in range(images):
        for i in range(first_row, last_row):
            for j in range(width of the output):
                for f, c, r, s in the tile:
                    sums[f, c, r, s] += grad[n, f, i, j] * x[n, c, i * down + top + r * dilation_h,
                                                             j * step + left + s * dilation_w]

Masked loads give zero for padding columns; padding rows are read from a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastconv.codegen.integers import Integer, counted, pointer_to
from fastconv.codegen.sums_over_pixels import SumsOverPixels
from fastconv.codegen.vector import vectors

#: The arguments: addresses of the input, the output gradient, the sums and a row of zeros; the
#: number of images; image strides and plane strides of both in elements; height and width of the
#: input and width of the gradient; the range of rows; the row and column of the first tap; the
#: vertical stride and the dilations; whether this is the first call, which writes the sums instead
#: of adding to them.
ARGUMENTS = (
    *("x", "grad", "sums", "zeros", "images", "x_image", "grad_image", "x_plane", "grad_plane"),
    *("height", "width", "grad_width", "first_row", "last_row", "top", "left", "down"),
    *("dilation_h", "dilation_w", "first"),
)


class Taps(NamedTuple):
    """The size of a tile: output channels, input channels, and rows and columns of the kernel."""

    filters: int
    channels: int
    rows: int
    columns: int

    @property
    def sums(self) -> int:
        """How many sums a tile has."""
        return self.filters * self.channels * self.rows * self.columns


# The columns and masks of the vectors that a tap needs.
_Loads = list[tuple[Integer, Any]]


class DirectWeightGradMicrokernel:
    """Computes one tile; its horizontal stride `step` is 1 or 2."""

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any) -> None:
        self.builder, self.size, self.v = builder, bits // 8, v
        self.vector = vectors(builder, bits, lanes)

    def emit(self, taps: Taps, step: int) -> None:
        """Emit the microkernel."""
        builder, vector, v = self.builder, self.vector, self.v
        sums, lanes = SumsOverPixels(vector, taps.sums), vector.lanes
        with counted(builder, 0, v.images) as n, counted(builder, 0, v.grad_width, lanes) as j:
            x, grad = v.x + n * v.x_image * self.size, v.grad + n * v.grad_image * self.size
            mask = vector.within(j.value, v.grad_width.value)
            loads = self._loads(j, taps.columns, step)
            with counted(builder, v.first_row, v.last_row) as i:
                row = i * v.grad_width + j
                grads = [
                    vector.load(pointer_to(vector, grad, row, v.grad_plane * f), mask)
                    for f in range(taps.filters)
                ]
                for t, value in enumerate(self._pixels(x, i, taps, step, loads)):
                    for f, g in enumerate(grads):
                        sums.add_product(t + f * (taps.sums // taps.filters), g, value)
        sums.store(v.sums, v.first)

    def _loads(self, j: Integer, columns: int, step: int) -> list[_Loads]:
        """Return the vectors that each tap of a row needs.

        Columns beyond those of the last pixel are masked too: zero times infinity is not zero. At
        step 2 two taps share their vectors.
        """
        vector, v = self.vector, self.v
        loads: list[_Loads] = []
        for s in range(0, columns, step):
            shift = v.left + v.dilation_w * s
            begin, end = j * step + shift, (v.grad_width - 1) * step + (shift + step)
            end = end.at_most(v.width).at_least(0)
            parts = [begin + part * vector.lanes for part in range(step)]
            found = [(part, vector.within(part.value, end.value)) for part in parts]
            loads += [found] * min(step, columns - s)
        return loads

    def _pixels(
        self, x: Integer, i: Integer, taps: Taps, step: int, loads: Sequence[_Loads]
    ) -> Iterator[Any]:
        """Yield the input vector of each tap for row `i`, in the order (c, r, s)."""
        builder, vector, v = self.builder, self.vector, self.v
        for c in range(taps.channels):
            for r in range(taps.rows):
                h = i * v.down + v.top + v.dilation_h * r
                inside = builder.icmp_unsigned("<", h.value, v.height.value)
                row = x + (v.x_plane * c + h * v.width) * self.size
                row = row.choose(inside, row, v.zeros)
                loaded: list[Any] = []
                for s in range(taps.columns):
                    if s % step == 0:
                        loaded = [
                            vector.load(pointer_to(vector, row, column), mask)
                            for column, mask in loads[s]
                        ]
                    picks = range(s % 2, 2 * vector.lanes, 2)
                    yield loaded[0] if step == 1 else vector.shuffle(loaded[0], loaded[1], picks)
