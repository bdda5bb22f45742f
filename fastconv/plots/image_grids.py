"""Grids of images: filters, feature maps, misclassified images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.plots.canvas import (
    BLUE,
    INK,
    MUTED,
    SIGNED,
    STRENGTH,
    VERMILLION,
    as_picture,
    bare,
    largest,
    mosaic,
    new_figure,
    number,
    on_color,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_CHANNELS = 16


def filters(weight: ArrayLike, title: str | None = None, most: int = 64) -> Figure:
    """Draw the filters of a convolution layer; white is zero, blue negative, red positive.

    Parameters
    ----------
    weight : array-like, (K, C / groups, R, S)
        With several channels, each row is a filter and each column a channel; filters of one
        channel fill a grid. A few small filters show their numbers.
    title : str, optional
    most : int
        Largest number of filters to draw, of up to 16 channels each.

    Returns
    -------
    matplotlib.figure.Figure
        One axis; all filters share a colour scale.

    Raises
    ------
    TypeError, ValueError
        For other than 4 dimensions, and empty arrays.

    Examples
    --------
    >>> import numpy as np
    >>> figure = filters(np.random.default_rng(0).standard_normal((8, 3, 3, 3)))
    >>> len(figure.axes)  # the filters and the colour bar
    2
    """
    array = _filled("weight", weight, 4)
    count, channels = min(len(array), _positive("most", most)), min(array.shape[1], _MOST_CHANNELS)
    shown = array[:count, :channels].astype(float)
    taps = array.shape[2:]
    if channels == 1:
        columns = min(count, max(8, math.ceil(math.sqrt(2 * count))) if count > 8 else count)
        firsts = range(0, count, columns)
        rows = [list(shown[start : start + columns, 0]) for start in firsts]
        names = [f"{i} to {min(i + columns, count) - 1}" if columns > 1 else f"{i}" for i in firsts]
    else:
        rows = [list(channels_of_one) for channels_of_one in shown]
        names, columns = [f"{i}" for i in range(count)], channels
    zoom = 3 if max(taps) <= 5 else 1
    high, wide = zoom * taps[0] + 1, zoom * taps[1] + 1  # of a filter and the gap after it
    inch = min(1.1 / max(high, wide), 9.5 / (columns * wide), 10.0 / (len(rows) * high))
    figure = new_figure(
        max(columns * wide * inch + 1.6, 4.2),
        max(len(rows) * high * inch + (1.25 if channels > 1 else 0.8), 1.7),
        title or "Filters",
    )
    axis = figure.subplots()
    limit = largest(array)
    drawn = axis.imshow(
        mosaic(rows, zoom), SIGNED, vmin=-limit, vmax=limit, interpolation="nearest"
    )
    bare(axis)
    axis.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    axis.set_yticks([high * i + high / 2 - 1 for i in range(len(rows))], names)
    axis.set_ylabel("filter", fontsize=9, color=MUTED)
    if channels > 1:
        middles = [wide * j + wide / 2 - 1 for j in range(channels)]
        axis.set_xticks(middles, [f"{j}" for j in range(channels)])
        axis.set_xlabel("input channel", fontsize=9, color=MUTED)
    bar = figure.colorbar(drawn, ax=axis, fraction=0.05, aspect=18, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, labelcolor=MUTED, length=2)
    if shown.size <= 200 and max(taps) <= 5:
        _write_numbers(axis, rows, zoom, 72 * inch * zoom)
    _note_omitted(figure, array.shape, count, channels)
    return figure


def _write_numbers(axis: Any, rows: list[list[Array]], zoom: int, points: float) -> None:
    """Write the value of every tap of a mosaic of filters; a tap is `points` high."""
    drawn = axis.images[0]
    high, wide = (zoom * size + 1 for size in rows[0][0].shape)
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            for (r, s), value in np.ndenumerate(one):
                y, x = i * high + zoom * r, j * wide + zoom * s
                style: dict[str, Any] = {"fontsize": min(9, 0.32 * points)}
                style["color"] = on_color(*drawn.to_rgba(value)[:3])
                middle = x + zoom // 2, y + zoom // 2
                axis.text(*middle, number(value, 2), ha="center", va="center", **style)


def _note_omitted(figure: Figure, shape: tuple[int, ...], count: int, channels: int) -> None:
    parts = []
    if count < shape[0]:
        parts.append(f"the first {count} of {shape[0]} filters")
    if channels < shape[1]:
        parts.append(f"the first {channels} of {shape[1]} channels")
    if parts:
        figure.supxlabel(", ".join(parts), fontsize=8, color=MUTED)


def feature_maps(
    maps: Sequence[ArrayLike] | Mapping[str, ArrayLike],
    titles: Sequence[str] | None = None,
    most: int = 8,
) -> Figure:
    """Draw the outputs of the layers of a network for one image, one row per layer.

    Parameters
    ----------
    maps : sequence or dict of array-like, (C, H, W) or (N, C, H, W)
        The outputs of the layers, in their order; of a batch the first image is drawn. The keys
        of a dict are titles.
    titles : sequence of str, optional
        One per layer.
    most : int
        Largest number of maps to draw of each layer.

    Returns
    -------
    matplotlib.figure.Figure
        One axis per layer; dark is the lowest and yellow the highest value of that layer.

    Raises
    ------
    TypeError, ValueError
        Also for no layers, or fewer titles than layers.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> figure = feature_maps({"conv1": rng.random((4, 14, 14)), "conv2": rng.random((8, 7, 7))})
    >>> [axis.get_title(loc="left") for axis in figure.axes]
    ['conv1: 4 maps of 14 x 14', 'conv2: 8 maps of 7 x 7']
    """
    if isinstance(maps, Mapping):
        titles, maps = [str(name) for name in maps], list(maps.values())
    layers = []
    for i, layer in enumerate(maps):
        ndim = 4 if np.ndim(layer) == 4 else 3
        array = _filled(f"maps[{i}]", layer, ndim)
        layers.append((array[0] if ndim == 4 else array).astype(float))
    names = [f"layer {i}" for i in range(len(layers))] if titles is None else list(titles)
    if not layers or len(names) != len(layers):
        raise ValueError(
            f"maps and titles must be equally many and at least 1, got {len(layers)} and "
            f"{len(names)}"
        )
    columns = min(_positive("most", most), max(len(layer) for layer in layers))
    # All rows are as wide as the widest, so that maps of all layers have the same size.
    cell = min(1.5, 10.5 / columns)
    heights = [cell * layer.shape[1] / layer.shape[2] + 0.25 for layer in layers]
    figure = new_figure(max(columns * cell + 0.3, 4.5), sum(heights) + 0.45, "Feature maps")
    axes = figure.subplots(len(layers), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis, layer, name in zip(axes[:, 0], layers, names, strict=True):
        height, width = layer.shape[1:]
        zoom = max(1, round(56 / width))
        gap = max(1, round(zoom * width / 16))
        shown = mosaic([list(layer[:columns])], zoom, gap)
        finite = layer[np.isfinite(layer)]
        low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
        axis.imshow(
            shown,
            STRENGTH,
            vmin=low if high > low else high - 1,
            vmax=high if high > low else low + 1,
            interpolation="nearest",
        )
        axis.set_xlim(-0.5, columns * (zoom * width + gap) - gap - 0.5)
        axis.set_anchor("W")
        part = f", the first {columns}" if len(layer) > columns else ""
        count = "1 map" if len(layer) == 1 else f"{len(layer)} maps"
        heading = f"{name}: {count} of {height} x {width}{part}"
        axis.set_title(heading, loc="left", fontsize=9, color=INK, pad=4)
        bare(axis)
    return figure


def mistakes(
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    count: int = 12,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw the misclassified images, those of the highest probability first.

    Parameters
    ----------
    images : array-like, (N, C, H, W)
        One channel is drawn in gray, three in colour.
    labels : array-like, (N,)
        The true classes, integers.
    probabilities : array-like, (N, classes)
        Predicted probabilities of each class.
    count : int
        Largest number of images to draw.
    classes : sequence of str, optional
        The names of the classes.

    Returns
    -------
    matplotlib.figure.Figure
        Above each image the predicted class, below it the true one.

    Raises
    ------
    TypeError, ValueError
        For arrays that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((3, 1, 8, 8))
    >>> figure = mistakes(images, [0, 1, 1], [[0.9, 0.1], [0.7, 0.3], [0.1, 0.9]])
    >>> figure.axes[0].get_title()
    'predicted 0, 70%'
    """
    pictures = as_numbers("images", images, 4)
    right, shares = as_numbers("labels", labels, 1), as_numbers("probabilities", probabilities, 2)
    if not len(pictures) == len(right) == len(shares) or not len(right):
        raise ValueError(
            "images, labels and probabilities must be equally many and at least 1, got "
            f"{len(pictures)}, {len(right)} and {len(shares)}"
        )
    if classes is not None and len(classes) != shares.shape[1]:
        raise ValueError(f"classes must name {shares.shape[1]} classes, got {len(classes)}")
    predicted, confidence = shares.argmax(1), shares.max(1)
    wrong = np.flatnonzero(predicted != right)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][: _positive("count", count)]
    title = f"{len(wrong)} mistakes among {len(right)} images"
    if len(chosen) < len(wrong):
        title += f", the {len(chosen)} most confident"
    columns = min(6, max(len(chosen), 3))
    rows = max(1, math.ceil(len(chosen) / columns))
    figure = new_figure(1.55 * columns, 1.95 * rows + 0.45 if len(chosen) else 0.6, title)
    for axis in figure.subplots(rows, columns, squeeze=False).ravel()[len(chosen) :]:
        axis.remove()
    for axis, index in zip(list(figure.axes), chosen, strict=True):
        picture = as_picture(pictures[index].astype(float))
        axis.imshow(picture, "gray", interpolation="nearest")
        bare(axis)
        found, true = int(predicted[index]), int(right[index])
        names = (found, true) if classes is None else (classes[found], classes[true])
        heading = f"predicted {names[0]}, {confidence[index]:.0%}"
        axis.set_title(heading, fontsize=9.5, pad=4, color=VERMILLION)
        axis.set_xlabel(f"true {names[1]}", fontsize=9.5, labelpad=4, color=BLUE)
    return figure


def _filled(name: str, value: ArrayLike, ndim: int) -> Array:
    array = as_numbers(name, value, ndim)
    if not array.size:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
