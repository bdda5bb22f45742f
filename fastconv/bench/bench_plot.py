"""A picture of a benchmark: one row a layer, one mark an algorithm, the peak as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastconv.bench.bench_errors import BenchError, require
from fastconv.bench.results import LayerResult
from fastconv.runtime.atomic_files import write_atomically

SUFFIXES = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which the colour-blind can tell apart, and a shape each for print.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
_ROW_HEIGHT = 0.34  # inches


def check_plot(path: Path) -> None:
    """Raise `BenchError` unless a picture of this kind can be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise BenchError(f"--plot must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    require("matplotlib", "--plot")


def write_plot(path: Path, header: dict[str, Any], results: Sequence[LayerResult]) -> None:
    """Draw the results into a file whose suffix says what kind it is."""
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys(result.direction for result in results))
    groups = [[r for r in results if r.direction == direction] for direction in directions]
    heights = [len(group) + 1.2 for group in groups]
    figure = Figure(figsize=(10, _ROW_HEIGHT * sum(heights) + 1.4), layout="constrained")
    axes = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    styles = _styles(results)
    for axis, direction, group in zip(axes, directions, groups, strict=True):
        _draw(axis, group, header["peak_gflops"], styles)
        axis.set_title(direction, loc="left", fontsize=10, fontweight="bold")
    axes[-1].set_xlabel("GFLOP/s")
    handles, labels = _legend(list(axes))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / 6))
    place = {"loc": "outside upper center", "ncols": columns}
    figure.legend(handles, labels, **place, frameon=False, fontsize=9, handletextpad=0.4)
    figure.supxlabel(_caption(header), fontsize=8, color="#555555")

    def save(file: Path) -> None:
        figure.savefig(file, dpi=150, facecolor="white")

    write_atomically(path, save)


def _styles(results: Sequence[LayerResult]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(record.algorithm for result in results for record in result.records)
    return {
        name: {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(names)
    }


def _draw(
    axis: Any, results: Sequence[LayerResult], peak: float, styles: dict[str, dict[str, Any]]
) -> None:
    for row in range(0, len(results), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="#F3F4F6", linewidth=0, zorder=0)
    rings: list[tuple[float, float]] = []
    for place, (name, style) in enumerate(styles.items()):
        # Marks of one row lie a little below each other, so that equals do not hide each other.
        offset = 0.5 * (place - (len(styles) - 1) / 2) / max(4, len(styles))
        points = []
        for row, result in enumerate(results):
            for record in result.records:
                if record.algorithm == name and record.gflops:
                    points.append((record.gflops, row + offset))
                    rings += [points[-1]] if record.chosen_by_auto else []
        edge = {"edgecolors": "white", "linewidths": 0.4}
        axis.scatter(*_columns(points), s=36, label=name, zorder=4, **edge, **style)
    ring = {"facecolors": "none", "edgecolors": "#222222", "linewidths": 1.0}
    axis.scatter(*_columns(rings), s=105, label="auto runs this", zorder=3, **ring)
    axis.axvline(peak, color="#222222", linestyle="--", linewidth=1.1, label="FMA peak", zorder=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_yticks(range(len(results)), [f"{r.layer.suite}  {r.layer.id}" for r in results])
    axis.set_ylim(len(results) - 0.5, -0.5)
    axis.grid(axis="x", which="major", color="#D5D8DC", linewidth=0.6, zorder=0.5)
    axis.tick_params(axis="both", labelsize=9)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _legend(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def _caption(header: dict[str, Any]) -> str:
    cpu = header["cpu"]
    return (
        f"{cpu['name']}, {cpu['instructions']['name']}, {header['threads']} threads, "
        f"{header['dtype']}; FMA peak {header['peak_gflops']:.0f} GFLOP/s; "
        f"fastconv {header['versions']['fastconv']}, {header['date'][:10]}"
    )
