"""The picture of docs/accuracy.md: errors against depth, and against interpolation points."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from layer_errors import PROMISED, Errors
from methods import TORCH, Array, less_exact

from fastconv.plots.canvas import (
    BLUE,
    INK,
    MUTED,
    RULE,
    STRENGTH,
    VERMILLION,
    new_figure,
    save,
)

# More of the colours of Okabe and Ito.
GREEN, ORANGE = "#009E73", "#E69F00"

SIZE = 3
# Sums in three orders: one after another, as BLAS forms them, in runs.
SUMS = {"naive": MUTED, "im2col": GREEN, "implicit_gemm": BLUE, TORCH: ORANGE}
# Where names stand beside their points: offset in points, and which of their sides is there.
MARKED = {(0.75, 1.5): ("in use", (6, 4), "left"), (1, 2): ("Lavin and Gray", (-6, 4), "right")}
LEAST = ("least", (-6, 4), "right")


def draw(path: Path, errors: Errors, axis: Array, rms: Array) -> None:
    """Write the picture into a file whose suffix says what kind it is."""
    figure = new_figure(11.5, 4.8)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.25, 1)})
    _draw_depths(left, errors)
    image = _draw_points(right, axis, rms / 1e-7)
    bar = figure.colorbar(image, ax=right, shrink=0.85, pad=0.02)
    bar.set_label("RMS error, 1e-7 of the largest output", fontsize=9, color=INK)
    for which in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        which(lambda value, _: f"{value:g}")
    bar.ax.tick_params(which="both", labelsize=9)
    bar.outline.set_visible(False)
    save(figure, path, dpi=120)


def _draw_depths(axis: Any, errors: Errors) -> None:
    rough = less_exact()
    styles: dict[str, dict[str, Any]] = {
        name: {"color": color, "marker": "o"} for name, color in SUMS.items()
    }
    shades = [VERMILLION, "#CC79A7", "#8C6D31"]
    for i, name in enumerate(rough):
        styles[name] = {"color": shades[i % len(shades)], "marker": "sD^"[i % 3], "linewidth": 2}
    ends: list[tuple[float, str, str]] = []
    depths: list[int] = []
    for name, style in styles.items():
        points = [
            (c, e.largest) for (who, size, c), e in errors.items() if (who, size) == (name, SIZE)
        ]
        if not points:
            continue
        depths, values = (list(some) for some in zip(*points, strict=True))
        axis.plot(depths, values, markersize=4.5, label=name, **style)
        ends.append((values[-1], name, style["color"]))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    for name in rough:
        if (name, SIZE) in PROMISED:
            promised = PROMISED[name, SIZE]
            axis.axhline(promised, color=styles[name]["color"], linestyle="--", linewidth=1)
            position = (depths[0], promised * 1.06)
            told = f"{name} promises this"
            axis.annotate(told, position, fontsize=8, color=styles[name]["color"], va="bottom")
    _write_ends(axis, depths[-1], ends)
    axis.set_xticks(depths, [str(c) for c in depths])
    axis.minorticks_off()
    axis.set_xlabel("channels", fontsize=9)
    axis.set_title(
        f"Largest error of a {SIZE}x{SIZE} layer over its largest output, float32",
        **{"loc": "left", "fontsize": 10, "color": INK},
    )
    axis.grid(axis="y", color=RULE, linewidth=0.6)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _write_ends(axis: Any, depth: int, ends: list[tuple[float, str, str]]) -> None:
    """Write names at the ends of lines, those of near neighbours a little apart."""
    last = -math.inf
    for value, name, color in sorted(ends):
        last = max(math.log10(value), last + 0.075)
        position = (depth * 1.12, 10**last)
        axis.annotate(name, position, fontsize=8.5, color=color, va="center", annotation_clip=False)
    axis.set_xlim(right=depth * 6)


def _draw_points(axis: Any, grid: Array, rms: Array) -> Any:
    from matplotlib.colors import LogNorm

    half = (grid[1] - grid[0]) / 2
    extent = (grid[0] - half, grid[-1] + half) * 2
    ceiling = 6 * np.nanmin(rms)  # points that nobody would use would leave the rest one colour
    norm = LogNorm(np.nanmin(rms), ceiling, clip=True)
    image = axis.imshow(rms.T, origin="lower", extent=extent, norm=norm, cmap=STRENGTH)
    i, j = np.unravel_index(np.nanargmin(rms), rms.shape)
    marks = {**MARKED, (grid[i], grid[j]): LEAST}
    for (a, b), (told, position, side) in marks.items():
        axis.plot(a, b, "o", markersize=5, markerfacecolor="none", markeredgecolor="white")
        text: dict[str, Any] = {"ha": side, "fontsize": 8.5, "color": "white"}
        axis.annotate(told, (a, b), position, textcoords="offset points", **text)
    axis.set_xlabel("a", fontsize=9)
    axis.set_ylabel("b", fontsize=9)
    title = "F(4x4, 3x3) with points 0, ±a, ±b and infinity, 64 channels"
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.tick_params(labelsize=9)
    axis.spines[:].set_visible(False)
    return image
