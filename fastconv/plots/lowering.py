"""A picture of im2col: patches become columns, a convolution becomes one matrix product."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import columns
from fastconv.arguments import as_numbers, check_shape
from fastconv.geometry import IntPair, as_ints, as_pair
from fastconv.plots.canvas import INK, MUTED, PAPER, RULE, VERMILLION, new_figure, number
from fastconv.stencils import SOBEL_X

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]

_MOST_TAPS, _MOST_PATCHES, _MOST_SIDE = 27, 36, 12
_CELL = 0.36  # inches
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
    """Draw how im2col lays the patches of a small image into the columns of a matrix.

    One patch of the image is coloured, tap by tap; the same colours are found again in its
    column and in the filter, which is a row. Row times matrix, drawn below the matrix, are the
    pixels of the output.

    Parameters
    ----------
    image : array-like, (H, W) or (C, H, W)
        Small: at most 12 pixels high and wide with its padding.
    kernel_size, stride, padding : int or (int, int)
        C * R * S must be at most 27, and there may be 36 patches.
    weight : array-like, (R, S) or (C, R, S), optional
        The filter. Without it Sobel's horizontal kernel where it fits, else ones.
    patch : (int, int), optional
        Row and column of the output pixel whose patch is coloured; without it the middle one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        Also for images too large to be drawn.
    ModuleNotFoundError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> figure = im2col(np.arange(16).reshape(4, 4), kernel_size=2)
    >>> figure.get_suptitle()
    'im2col: 9 patches of 4 pixels become a 4 x 9 matrix'
    """
    pixels = np.asarray(image)
    pixels = as_numbers("image", pixels[np.newaxis] if pixels.ndim == 2 else pixels, 3)
    kernel = as_pair("kernel_size", kernel_size, 1)
    steps, around = as_pair("stride", stride, 1), as_pair("padding", padding, 0)
    padded = np.pad(pixels, ((0, 0), *((margin, margin) for margin in around)))
    if max(padded.shape[1:]) > _MOST_SIDE:
        raise ValueError(
            f"image must be at most {_MOST_SIDE} pixels high and wide to be drawn, got "
            f"{padded.shape[1:]} with its padding"
        )
    matrix = columns.im2col(pixels[np.newaxis], kernel, 1, around, steps)[0]
    taps, patches = matrix.shape
    if taps > _MOST_TAPS or patches > _MOST_PATCHES:
        raise ValueError(
            f"image and kernel_size must give at most {_MOST_TAPS} taps and {_MOST_PATCHES} "
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
    array = np.asarray(weight)
    array = as_numbers("weight", array[np.newaxis] if array.ndim == 2 else array, 3)
    check_shape("weight", array, shape, "C, R, S")
    return array


class _Drawing:
    """The picture, in units of cells; y grows downwards.

    Left above the image and the filter, right above the matrix; below the filter as a row and,
    under the columns that they come from, the pixels of the output.
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

    def draw(self) -> Figure:
        taps, patches = self.matrix.shape
        channels, height, width = self.padded.shape
        _, rows, across = self.filters.shape
        stacked = channels * height + (channels - 1) * 0.6
        filters = channels * rows + (channels - 1) * 0.6
        # Where the parts lie: left edges and the line of the product.
        left = max(taps, width + 2.0 + across)
        matrix_x = left + 1.6
        output_x = matrix_x + patches + 1.8
        product_y = max(taps, stacked) + 2.3
        right = output_x + max(self.outputs[1], 3.2)
        extent = right + 0.6, product_y + 2.3
        colors = _tap_colors(taps)
        title = f"im2col: {patches} patches of {taps} pixels become a {taps} x {patches} matrix"
        figure = new_figure(extent[0] * _CELL + 0.2, (extent[1] + 1.9) * _CELL + 0.3, title)
        axis = figure.subplots()
        axis.set(xlim=(-0.3, extent[0]), ylim=(extent[1], -1.5), aspect="equal")
        axis.set_axis_off()
        self.axis = axis

        top = product_y - 2.3 - stacked
        places = self._places()
        self._caption(0, top, "image" + (", with padding" if any(self.around) else ""))
        for channel in range(channels):
            y = top + channel * (height + 0.6)
            cells = {(i, j): colors[tap] for (c, i, j), tap in places.items() if c == channel}
            self._table(0, y, self.padded[channel], cells, self._is_padding)
            self._frame(self.corner[1], y + self.corner[0], across, rows)
        filter_x = left - across
        filter_top = product_y - 2.3 - filters
        self._caption(filter_x, filter_top, "filter")
        for channel in range(channels):
            y = filter_top + channel * (rows + 0.6)
            own = {
                (r, s): colors[(channel * rows + r) * across + s]
                for r in range(rows)
                for s in range(across)
            }
            self._table(filter_x, y, self.filters[channel], own)

        matrix_y = product_y - 2.3 - taps
        self._caption(matrix_x, matrix_y, "columns: one patch each")
        in_column = {(tap, self.chosen): colors[tap] for tap in range(taps)}
        self._table(matrix_x, matrix_y, self.matrix, in_column)
        self._frame(matrix_x + self.chosen, matrix_y, 1, taps)

        self._caption(left - taps, product_y, "filter as a row")
        row = self.filters.reshape(1, -1)
        self._table(left - taps, product_y, row, {(0, tap): colors[tap] for tap in range(taps)})
        self.axis.text(left + 0.8, product_y + 0.5, "=", **_MIDDLE, fontsize=15, color=INK)
        product = row @ self.matrix
        self._caption(matrix_x, product_y, "row x matrix: the output")
        self._table(matrix_x, product_y, product, {(0, self.chosen): _RESULT})
        self._frame(matrix_x + self.chosen, product_y, 1, 1)

        image_y = matrix_y + (taps - self.outputs[0]) / 2
        self._caption(output_x, image_y, "output")
        at = divmod(self.chosen, self.outputs[1])
        self._table(output_x, image_y, product.reshape(self.outputs), {at: _RESULT})
        self._frame(output_x + at[1], image_y + at[0], 1, 1)
        self._arrow(
            (self.corner[1] + across, top + self.corner[0] + rows / 2),
            (matrix_x + self.chosen, matrix_y + taps / 2),
        )
        self._arrow(
            (matrix_x + self.chosen + 1, product_y + 0.5),
            (output_x + at[1] + 0.5, image_y + at[0] + 1),
        )
        return figure

    def _places(self) -> dict[tuple[int, int, int], int]:
        """Return the tap over each coloured pixel (channel, row, column) of the image."""
        top, left = self.corner
        places = np.ndindex(*self.filters.shape)
        return {(c, top + r, left + s): tap for tap, (c, r, s) in enumerate(places)}

    def _is_padding(self, i: int, j: int) -> bool:
        (rows, columns), (_, height, width) = self.around, self.padded.shape
        return not (rows <= i < height - rows and columns <= j < width - columns)

    def _caption(self, x: float, y: float, text: str) -> None:
        self.axis.text(x, y - 0.35, text, ha="left", va="bottom", fontsize=9, color=MUTED)

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
            lifeless = pale(i, j)
            fill = colors.get((i, j), PAPER if lifeless else "white")
            cell = Rectangle((x + j, y + i), 1, 1, facecolor=fill, edgecolor=RULE, linewidth=0.7)
            self.axis.add_patch(cell)
            text = number(value)
            style: dict[str, Any] = {"fontsize": 8.5 if len(text) < 4 else 6.5, "color": INK}
            if lifeless:
                style["color"] = MUTED
            self.axis.text(x + j + 0.5, y + i + 0.53, text, **_MIDDLE, **style)

    def _frame(self, x: float, y: float, width: float, height: float) -> None:
        from matplotlib.patches import Rectangle

        style: dict[str, Any] = {
            "fill": False,
            "edgecolor": VERMILLION,
            "linewidth": 2.0,
            "zorder": 5,
        }
        self.axis.add_patch(Rectangle((x, y), width, height, **style))

    def _arrow(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        style: dict[str, Any] = {
            "arrowstyle": "-|>",
            "color": VERMILLION,
            "linewidth": 1.4,
            "shrinkA": 2,
        }
        style |= {"shrinkB": 2, "connectionstyle": "arc3,rad=-0.2", "mutation_scale": 11}
        self.axis.annotate("", stop, start, arrowprops=style, zorder=6)


def _tap_colors(taps: int) -> list[tuple[float, ...]]:
    """Return a light colour for each tap; their brightness grows, so that all can be told apart."""
    from matplotlib import colormaps

    dark = colormaps["viridis"](np.linspace(0.15, 1, taps))[:, :3]
    return [tuple(color) for color in 0.5 * dark + 0.5]
