"""Kernels of image processing applied to a photograph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.conv2d import conv2d
from fastconv.core.arguments import Array, as_numbers
from fastconv.core.stencils import BLUR, LAPLACE, SHARPEN, SOBEL_X, SOBEL_Y
from fastconv.plots.canvas import INK, SIGNED, as_channels, bare, largest, new_figure, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_KERNELS = {
    "Sobel x": SOBEL_X,
    "Sobel y": SOBEL_Y,
    "Laplacian": LAPLACE,
    "sharpen": SHARPEN,
    "blur": BLUR,
}
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_COLUMNS = 4


def edges(
    image: ArrayLike, kernels: Mapping[str, ArrayLike] | None = None, title: str | None = None
) -> Figure:
    """Draw a photograph and its convolutions with kernels, computed by ``fastconv.conv2d``.

    Parameters
    ----------
    image : array-like, (H, W), (1, H, W), (3, H, W) or (H, W, 3)
        In [0, 1], or bytes; colours are converted to gray first.
    kernels : dict of array-like, (R, S), optional
        By name. By default Sobel's two kernels, the Laplacian, a sharpening one and a blurring
        one. With "Sobel x" and "Sobel y", the magnitude sqrt(x^2 + y^2) is drawn too.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        One axis per image, with the kernel in a corner. Results of kernels whose sum is zero are
        signed: white is zero, red and blue are edges from dark to bright and back.

    Raises
    ------
    TypeError, ValueError
        Also for kernels larger than the image.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.zeros((20, 30))
    >>> image[:, 10:] = 1
    >>> figure = edges(image, {"difference": [[-1, 1]]})
    >>> [axis.get_title(loc="left") for axis in figure.axes]
    ['photograph', 'difference']
    """
    colors = _as_image(image)
    gray = np.tensordot(_LUMINANCE, colors, 1) if len(colors) == 3 else colors[0]
    chosen = {
        name: as_numbers(f"kernels[{name!r}]", kernel, 2).astype(float)
        for name, kernel in (_KERNELS if kernels is None else kernels).items()
    }
    results = {name: _filtered(gray, kernel) for name, kernel in chosen.items()}
    panels: list[tuple[str, Array, str]] = [("photograph", colors.transpose(1, 2, 0), "image")]
    if len(colors) == 3:
        panels += [("gray, as the kernels see it", gray[..., np.newaxis], "image")]
    for name, result in results.items():
        signed = abs(chosen[name].sum()) < 1e-9 * np.abs(chosen[name]).sum()
        panels.append((name, result, "signed" if signed else "image"))
        if name == "Sobel y" and "Sobel x" in results:
            magnitude = np.hypot(results["Sobel x"], result)
            panels.append(("magnitude of Sobel x and y", magnitude, "strength"))
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = math.ceil(len(panels) / rows)
    width = 3.2
    height = width * gray.shape[0] / gray.shape[1] + 0.24
    figure = new_figure(columns * width, rows * height + 0.3, title or "Edges by convolution")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (name, picture, kind) in zip(axes, panels, strict=False):
        _draw(axis, picture, kind)
        text, divisor = name, 1.0
        if name in chosen:
            numbers, divisor = _whole(chosen[name])
            _draw_kernel(axis, numbers)
        if divisor != 1:
            text += f", kernel / {divisor:g}"
        axis.set_title(text, loc="left", fontsize=10, color=INK, pad=4)
    return figure


def _as_image(image: ArrayLike) -> Array:
    """Return an image as (1, H, W) or (3, H, W) in [0, 1]."""
    array = as_channels("image", image)
    if array.shape[-1] == 3 and array.shape[0] not in (1, 3):
        array = array.transpose(2, 0, 1)
    if array.shape[0] not in (1, 3) or not array.size:
        raise ValueError(
            f"image must have shape (H, W), (1, H, W), (3, H, W) or (H, W, 3), got {array.shape}"
        )
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def _filtered(gray: Array, kernel: Array) -> Array:
    """Convolve an image, padded by its edge pixels, so that the border is no edge."""
    rows, columns = kernel.shape
    around = ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2)
    padded = np.pad(gray, around, mode="edge")
    result: Array = conv2d(padded[np.newaxis, np.newaxis], kernel[np.newaxis, np.newaxis])[0, 0]
    return result


def _draw(axis: Any, picture: Array, kind: str) -> None:
    if kind == "image":
        color = picture.shape[-1] == 3 and picture.ndim == 3
        shown = np.clip(picture if color else picture.reshape(picture.shape[:2]), 0, 1)
        axis.imshow(shown, "gray", vmin=0, vmax=1)
    else:
        # A few extreme pixels would leave the rest pale.
        limit = float(np.percentile(np.abs(picture), 98)) or largest(picture)
        if kind == "signed":
            axis.imshow(picture, SIGNED, vmin=-limit, vmax=limit)
        else:
            axis.imshow(picture, "gray_r", vmin=0, vmax=limit)
    bare(axis)


def _whole(kernel: Array) -> tuple[Array, float]:
    """Return a kernel scaled so that its smallest tap is 1, and the factor."""
    smallest = np.abs(kernel[kernel != 0]).min(initial=np.inf)
    if not np.isfinite(smallest):
        return kernel, 1.0
    scaled = kernel / smallest
    whole = np.allclose(scaled, np.round(scaled)) and np.isclose(1 / smallest, round(1 / smallest))
    return (np.round(scaled), round(1 / smallest)) if whole else (kernel, 1.0)


def _draw_kernel(axis: Any, kernel: Array) -> None:
    """Draw a kernel into the lower left corner of an axis."""
    rows, columns = kernel.shape
    if max(rows, columns) > 5:  # it would hide the image
        return
    cell = 0.095 if rows > 3 else 0.12
    box = axis.inset_axes((0.012, 0.015, 1, rows * cell))
    box.set_aspect("equal", adjustable="box", anchor="SW")
    box.set(xlim=(0, columns), ylim=(rows, 0))
    box.set_facecolor("white")
    bare(box)
    size = 6.2 if rows > 3 else 8
    for (i, j), value in np.ndenumerate(kernel):
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": INK}
        box.text(j + 0.5, i + 0.53, number(value, 2), **style)
