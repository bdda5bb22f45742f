"""What all plots share: figures without global state, colours, mosaics of images, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.runtime.atomic_files import write_atomically
from fastconv.runtime.optional_packages import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The colours of Okabe and Ito, which colour-blind people can distinguish.
BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, MUTED, RULE, PAPER = "#222222", "#5F6670", "#D5D8DC", "#F3F4F6"

SIGNED = "RdBu_r"  # white is zero
STRENGTH = "viridis"


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure to a file, completely or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Its suffix is the format: .png, .svg, .pdf and others that matplotlib knows.
    dpi : int
        Dots per inch of raster formats.

    Raises
    ------
    ValueError
        For a suffix that matplotlib does not know.
    OSError
        If the file cannot be written; an existing file is then unchanged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import plots
    >>> figure = plots.filters(np.ones((1, 1, 3, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plots.save(figure, Path(folder, "filters.png"))
    """
    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix[1:].lower() not in known:
        suffixes = ", ".join(f".{kind}" for kind in sorted(known))
        raise ValueError(f"path must end in one of {suffixes}, got {str(target)!r}")
    write_atomically(target, lambda file: figure.savefig(file, dpi=dpi, facecolor="white"))


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """Return an empty figure of a size in inches, with a title at the left."""
    figures = require("matplotlib.figure", "fastconv.plots", "plots")
    figure: Figure = figures.Figure(figsize=(width, height), layout="constrained")
    if title:
        heading: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "color": INK}
        figure.suptitle(title, x=0.012, ha="left", **heading)
    return figure


def bare(axis: Any) -> None:
    """Remove the ticks and the frame of an axis."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def mosaic(images: Sequence[Sequence[Array]], zoom: int = 1, gap: int = 1) -> Array:
    """Return rows of images as one image, with gaps of NaN, which are not drawn.

    Every pixel becomes `zoom` pixels high and wide, so that gaps can be narrower than pixels.
    """
    height, width = (zoom * size for size in images[0][0].shape)
    columns = max(len(row) for row in images)
    shape = len(images) * (height + gap) - gap, columns * (width + gap) - gap
    whole = np.full(shape, np.nan)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            whole[top : top + height, left : left + width] = image.repeat(zoom, 0).repeat(zoom, 1)
    return whole


def as_channels(name: str, value: ArrayLike) -> Array:
    """Return an image or a filter, (H, W) or (C, H, W), as (C, H, W)."""
    array = np.asarray(value)
    return as_numbers(name, array[np.newaxis] if array.ndim == 2 else array, 3)


def as_picture(image: Array) -> Array:
    """Return an image (C, H, W) as matplotlib draws it: (H, W), or (H, W, 3) within [0, 1]."""
    if image.shape[0] == 3:
        return np.clip(image.transpose(1, 2, 0), 0, 1)
    gray: Array = image.mean(0)
    return gray


def largest(array: Array) -> float:
    """Return the largest finite absolute value, 1 where there is none but zero."""
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0)) or 1.0


def on_color(red: float, green: float, blue: float) -> str:
    """Return the colour of text that is readable on a colour."""
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def number(value: float, digits: int = 1) -> str:
    """Return a short number: integers without a point, and a true minus sign."""
    rounded = round(float(value), digits) + 0.0  # plus zero: no negative zero
    text = f"{value:.0f}" if float(value).is_integer() else f"{rounded:.{digits}f}"
    return text.replace("-", "−")  # noqa: RUF001
