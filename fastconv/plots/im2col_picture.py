"""A plot of im2col: patches become columns, a convolution becomes one matrix product."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api import im2col_col2im
from fastconv.core.arguments import Array, check_shape
from fastconv.core.geometry import IntPair, as_ints, as_pair
from fastconv.core.stencils import SOBEL_X
from fastconv.plots.canvas import (
    INK,
    MUTED,
    PAPER,
    RULE,
    VERMILLION,
    as_channels,
    new_figure,
    number,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MAX_TAPS, _MAX_PATCHES, _MAX_SIDE = 27, 36, 12
_CELL = 0.36  # inches
_BETWEEN = 0.6  # channels, in cells
_ABOVE = 1.9  # everything, for the arrow
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}
_RESULT = "#FFD9A0"


def im2col(
    image: ArrayLike,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 0,
    *,
    weight: ArrayLike | None = None,
    patch: tuple[int, int] | None = None,
) -> Figure:
    """Draw how im2col copies the patches of a small image to the columns of a matrix.

    One patch of the image is coloured, tap by tap, and so are its column and the filter, which is
    a row. The product of row and matrix, below the matrix, has the pixels of the output.

    Parameters
    ----------
    image : array-like, (H, W) or (C, H, W)
        At most 12 pixels high and wide with padding.
    kernel_size, stride, padding : int or (int, int)
        C * R * S must be at most 27, and the number of patches at most 36.
    weight : array-like, (R, S) or (C, R, S), optional
        The filter. By default Sobel's horizontal kernel if 3 x 3, else ones.
    patch : (int, int), optional
        Row and column of the output pixel whose patch is coloured; by default the middle one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        Also for images that are too large to draw.

    Examples
    --------
    >>> import numpy as np
    >>> figure = im2col(np.arange(16).reshape(4, 4), kernel_size=2)
    >>> figure.get_suptitle()
    'im2col: 9 patches of 4 pixels become a 4 x 9 matrix'
    """
    pixels = as_channels("image", image)
    kernel = as_pair("kernel_size", kernel_size, 1)
    steps, around = as_pair("stride", stride, 1), as_pair("padding", padding, 0)
    padded = np.pad(pixels, ((0, 0), *((width, width) for width in around)))
    if max(padded.shape[1:]) > _MAX_SIDE:
        raise ValueError(
            f"image must be at most {_MAX_SIDE} pixels high and wide to be drawn, got "
            f"{padded.shape[1:]} with its padding"
        )
    matrix = im2col_col2im.im2col(pixels[np.newaxis], kernel, 1, around, steps)[0]
    taps, patches = matrix.shape
    if taps > _MAX_TAPS or patches > _MAX_PATCHES:
        raise ValueError(
            f"image and kernel_size must give at most {_MAX_TAPS} taps and {_MAX_PATCHES} "
            f"patches to be drawn, got {taps} and {patches}"
        )
    outputs = tuple(
        (size - own) // step + 1
        for size, own, step in zip(padded.shape[1:], kernel, steps, strict=True)
    )
    filters = _as_filter(weight, (len(pixels), *kernel))
    if patch is None:
        patch = outputs[0] // 2, outputs[1] // 2
    row, column = as_ints("patch", patch, 2, 0)
    if row >= outputs[0] or column >= outputs[1]:
        raise ValueError(f"patch must lie in the output of {outputs}, got {patch}")
    corner = row * steps[0], column * steps[1]
    drawing = _Drawing(padded, around, filters, matrix, outputs, corner, row * outputs[1] + column)
    return drawing.draw()


def _as_filter(weight: ArrayLike | None, shape: tuple[int, int, int]) -> Array:
    """Return the filter (C, R, S) to draw."""
    if weight is None:
        default = SOBEL_X * 4 if shape[1:] == (3, 3) else np.ones(shape[1:])
        return np.broadcast_to(default, shape)
    array = as_channels("weight", weight)
    check_shape("weight", array, shape, "C, R, S")
    return array


class _Drawing:
    """The plot, in units of cells; y increases downwards.

    At the top the image, the filter and the matrix; below them the filter as a row and, under the
    columns of which they are products, the pixels of the output.
    """

    def __init__(
        self,
        padded: Array,
        around: tuple[int, int],
        filters: Array,
        matrix: Array,
        outputs: tuple[int, ...],
        corner: tuple[int, int],
        chosen: int,
    ) -> None:
        self.padded, self.around, self.filters = padded, around, filters
        self.matrix, self.outputs, self.corner, self.chosen = matrix, outputs, corner, chosen
        self.product = filters.reshape(1, -1) @ matrix
        taps, patches = matrix.shape
        self.colors = _tap_colors(taps)
        # The upper parts end at `base`, the product begins at `line`.
        self.base = max(taps, self._height(padded), self._height(filters) + 1.5)
        self.line = self.base + 1.7
        self.left = max(taps, padded.shape[2] + 1.6 + filters.shape[2])
        self.middle = self.left + 1.3
        self.right = self.middle + patches + 1.6

    @staticmethod
    def _height(channels: Array) -> float:
        """Return the height in cells of channels drawn one above the other."""
        count, height, _ = channels.shape
        return float(count * (height + _BETWEEN) - _BETWEEN)

    def draw(self) -> Figure:
        """Return the figure."""
        taps, patches = self.matrix.shape
        title = f"im2col: {patches} patches of {taps} pixels become a {taps} x {patches} matrix"
        width, height = self.right + max(self.outputs[1], 3) + 0.3, self.line + 2.2
        above = _ABOVE + max(0, self.outputs[0] - self.line)
        figure = new_figure((width + 0.3) * _CELL, (height + above) * _CELL + 0.35, title)
        self.axis = figure.subplots()
        self.axis.set(xlim=(-0.3, width), ylim=(height, -above), aspect="equal")
        self.axis.set_axis_off()
        self._draw_image()
        self._draw_filter()
        self._draw_matrix()
        self._draw_output()
        return figure

    def _draw_image(self) -> None:
        channels, height, _ = self.padded.shape
        _, rows, across = self.filters.shape
        top = self.base - self._height(self.padded)
        caption = "image" if not any(self.around) else "image, padded with zeros"
        self._caption(0, top, caption)
        taps = self._taps()
        for channel in range(channels):
            y = top + channel * (height + _BETWEEN)
            own = {(i, j): self.colors[tap] for (c, i, j), tap in taps.items() if c == channel}
            self._table(0, y, self.padded[channel], own, self._is_padding)
            self._frame(self.corner[1], y + self.corner[0], across, rows)
        start = self.corner[1] + across, top + self.corner[0]
        self._arrow(start, (self.middle + self.chosen + 0.5, self.base - len(self.matrix)))

    def _draw_filter(self) -> None:
        channels, rows, across = self.filters.shape
        x, top = self.left - across, self.base - self._height(self.filters)
        self._caption(x, top, "filter")
        for channel in range(channels):
            own = {
                (r, s): self.colors[(channel * rows + r) * across + s]
                for r in range(rows)
                for s in range(across)
            }
            self._table(x, top + channel * (rows + _BETWEEN), self.filters[channel], own)
        taps = len(self.matrix)
        in_row = {(0, tap): self.colors[tap] for tap in range(taps)}
        self._table(self.left - taps, self.line, self.filters.reshape(1, -1), in_row)
        self._caption(self.left - taps, self.line + 1, "the filter as a row", below=True)

    def _draw_matrix(self) -> None:
        taps = len(self.matrix)
        in_column = {(tap, self.chosen): self.colors[tap] for tap in range(taps)}
        self._table(self.middle, self.base - taps, self.matrix, in_column)
        self._frame(self.middle + self.chosen, self.base - taps, 1, taps)
        self._caption(self.middle, self.base, "every column is a patch", below=True)

    def _draw_output(self) -> None:
        self._table(self.middle, self.line, self.product, {(0, self.chosen): _RESULT})
        self._frame(self.middle + self.chosen, self.line, 1, 1)
        self._caption(self.middle, self.line + 1, "row x matrix", below=True)
        at = divmod(self.chosen, self.outputs[1])
        top = self.line + 1 - self.outputs[0]
        self._table(self.right, top, self.product.reshape(self.outputs), {at: _RESULT})
        self._frame(self.right + at[1], top + at[0], 1, 1)
        self._caption(self.right, self.line + 1, "the output", below=True)

    def _taps(self) -> dict[tuple[int, int, int], int]:
        """Return the tap of each coloured pixel (channel, row, column) of the image."""
        top, left = self.corner
        offsets = np.ndindex(*self.filters.shape)
        return {(c, top + r, left + s): tap for tap, (c, r, s) in enumerate(offsets)}

    def _is_padding(self, i: int, j: int) -> bool:
        (rows, columns), (_, height, width) = self.around, self.padded.shape
        return not (rows <= i < height - rows and columns <= j < width - columns)

    def _caption(self, x: float, y: float, text: str, below: bool = False) -> None:
        y, alignment = (y + 0.3, "top") if below else (y - 0.3, "bottom")
        self.axis.text(x, y, text, ha="left", va=alignment, fontsize=9, color=MUTED)

    def _table(
        self,
        x: float,
        y: float,
        values: Array,
        colors: dict[tuple[int, int], Any],
        pale: Callable[[int, int], bool] = lambda _i, _j: False,
    ) -> None:
        """Draw numbers in cells, some of them coloured, some pale."""
        from matplotlib.patches import Rectangle

        for (i, j), value in np.ndenumerate(values):
            is_pale = pale(i, j)
            fill = colors.get((i, j), PAPER if is_pale else "white")
            cell = Rectangle((x + j, y + i), 1, 1, facecolor=fill, edgecolor=RULE, linewidth=0.7)
            self.axis.add_patch(cell)
            text = number(value)
            size, color = 8.5 if len(text) < 4 else 6.5, MUTED if is_pale else INK
            self.axis.text(x + j + 0.5, y + i + 0.53, text, fontsize=size, color=color, **_MIDDLE)

    def _frame(self, x: float, y: float, width: float, height: float) -> None:
        from matplotlib.patches import Rectangle

        frame = Rectangle((x, y), width, height, fill=False, edgecolor=VERMILLION, zorder=5)
        frame.set_linewidth(2.0)
        self.axis.add_patch(frame)

    def _arrow(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Draw an arrow that starts upwards and ends downwards."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        over = min(start[1], stop[1]) - 2.1
        bend = Path([start, (start[0], over), (stop[0], over), stop], [1, 4, 4, 4])
        style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.3}
        self.axis.add_patch(FancyArrowPatch(path=bend, color=VERMILLION, zorder=6, **style))


def _tap_colors(taps: int) -> list[tuple[float, ...]]:
    """Return a light colour for each tap, of increasing brightness."""
    from matplotlib import colormaps

    dark = colormaps["viridis"](np.linspace(0.15, 1, taps))[:, :3]
    return [tuple(color) for color in 0.5 * dark + 0.5]
