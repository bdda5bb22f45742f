"""Pictures of convolutions: edges, and what im2col does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import refused
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from test_plots import pixels, rendered, rng, texts

import fastconv
from fastconv import plots
from fastconv.plots.canvas import VERMILLION

# Edges --------------------------------------------------------------------------------------------


def test_edges_are_convolutions() -> None:
    image = rng().random((3, 20, 30))
    figure = plots.edges(image)
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert list(panels) == [
        "photograph",
        "gray, as the kernels see it",
        "Sobel x, kernel / 4",
        "Sobel y, kernel / 4",
        "magnitude of Sobel x and y",
        "Laplacian, kernel / 4",
        "sharpen",
        "blur, kernel / 256",
    ]
    gray = np.tensordot([0.299, 0.587, 0.114], image, 1)
    padded = np.pad(gray, 1, mode="edge")[np.newaxis, np.newaxis]
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    x, y = (fastconv.conv2d(padded, k[np.newaxis, np.newaxis])[0, 0] for k in (sobel, sobel.T))
    np.testing.assert_allclose(pixels(panels["Sobel x, kernel / 4"]), x)
    np.testing.assert_allclose(pixels(panels["magnitude of Sobel x and y"]), np.hypot(x, y))
    low, high = panels["Sobel y, kernel / 4"].images[0].get_clim()
    assert low == -high
    (box,) = panels["Laplacian, kernel / 4"].child_axes
    assert texts(box) == ["0", "1", "0", "1", "−4", "1", "0", "1", "0"]  # noqa: RUF001


def test_edges_of_every_form_of_image() -> None:
    colors = rng().integers(0, 256, (3, 12, 16), "u1")
    first = pixels(plots.edges(colors).axes[2])
    for same in (colors / 255, colors.transpose(1, 2, 0), colors.transpose(1, 2, 0) / 255):
        np.testing.assert_allclose(pixels(plots.edges(same).axes[2]), first)
    # An even image has no edges, not even at its border.
    even = plots.edges(np.full((9, 9), 0.5), {"difference": [[-1, 1]]})
    assert not pixels(even.axes[1]).any()
    rendered(even)
    with refused("image", "(2, 9, 9)"):
        plots.edges(np.zeros((2, 9, 9)))


# im2col -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [((5, 5), 3, 1, 0), ((4, 6), (2, 3), (1, 2), 0), ((3, 3), 2, 1, 1), ((2, 4, 4), 3, 1, 0)],
)
def test_im2col_shows_the_real_thing(shape: Any, kernel: Any, stride: Any, padding: Any) -> None:
    image = rng().integers(10, 100, shape)
    figure = plots.im2col(image, kernel, stride, padding)
    (axis,) = figure.axes
    batch = image.reshape(1, -1, *shape[-2:])
    cols = fastconv.im2col(batch, kernel, 1, padding, stride)[0]
    taps, patches = cols.shape
    wanted = f"im2col: {patches} patches of {taps} pixels become a {taps} x {patches} matrix"
    assert figure.get_suptitle() == wanted
    # The matrix, read from the picture: numbers by their places.
    numbers = {
        text.get_position(): text.get_text() for text in axis.texts if text.get_ha() == "center"
    }
    left = left_of(axis)
    inside = {place: text for place, text in numbers.items() if left < place[0] < left + patches}
    grid = sorted(inside, key=lambda place: (place[1], place[0]))
    drawn = [inside[place] for place in grid[: taps * patches]]
    assert drawn == [f"{value:.0f}" for value in cols.ravel()]
    frames = [
        patch
        for patch in axis.patches
        if isinstance(patch, Rectangle) and to_hex(patch.get_edgecolor()).upper() == VERMILLION
    ]
    assert (1, taps) in {(frame.get_width(), frame.get_height()) for frame in frames}
    chosen = next(frame for frame in frames if frame.get_height() == taps)
    top, column = chosen.get_y(), chosen.get_x()
    shown = [numbers[column + 0.5, top + tap + 0.53] for tap in range(taps)]
    middle = fastconv.sliding_windows(
        np.pad(batch, ((0, 0), (0, 0), *[(padding,) * 2] * 2)), kernel, 1, stride
    )
    i, j = middle.shape[2] // 2, middle.shape[3] // 2
    assert shown == [f"{value}" for value in middle[0, :, i, j].ravel()]


def left_of(axis: Any) -> float:
    """Return where the matrix begins: its caption stands at its left edge."""
    (caption,) = (text for text in axis.texts if text.get_text() == "every column is a patch")
    return float(caption.get_position()[0])


def test_im2col_product_and_limits() -> None:
    image = np.arange(9).reshape(3, 3)
    figure = plots.im2col(image, 2, weight=[[1, 0], [0, 0.5]], patch=(1, 0))
    shown = texts(figure.axes[0])
    for value in image[:2, :2].ravel() + 0.5 * image[1:, 1:].ravel():
        assert shown.count(f"{value:g}") >= 2  # in the row and in the output
    with refused("patch", "(2, 0)"):
        plots.im2col(image, 2, patch=(2, 0))
    with refused("weight", "(1, 3, 3)"):
        plots.im2col(image, 2, weight=np.ones((3, 3)))
    with refused("image", "(20, 20)"):
        plots.im2col(np.zeros((20, 20)), 3)
    with refused("kernel_size", "100"):
        plots.im2col(np.zeros((12, 12)), 3)
    with refused("kernel_size", 4):
        plots.im2col(image, 4)
