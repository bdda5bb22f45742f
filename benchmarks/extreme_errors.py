"""What algorithms make of numbers that are not finite, very large, very small, or stand out."""

from __future__ import annotations

import numpy as np
from methods import Array, Method, error, exact, table

import fastconv
from fastconv import nn

CHANNELS, FILTERS, SIDE = 8, 8, 24
TINY, OUTLIER = 1e-40, 1e6


def as_table(known: dict[str, Method], positions: range) -> str:
    """Return a table with a row for each method that takes a 3x3 layer.

    `positions` are those of a pixel that is no number or stands out, best in all parts of a tile.
    """
    x = np.random.default_rng(0).standard_normal((1, CHANNELS, SIDE, SIDE), np.float32)
    weight = nn.init.kaiming_normal((FILTERS, CHANNELS, 3, 3), 1)
    rows = []
    for name, convolve in known.items():
        if convolve(x, weight) is None:
            continue
        cells = (
            reached_by_nan(convolve, x, weight, positions),
            overflow(convolve, x, weight),
            f"{tiny(convolve, x, weight):.0e}",
            f"{beside_outlier(convolve, x, weight, positions):.0e}",
        )
        rows.append((f"`{name}`" if name in fastconv.algorithms() else name, *cells))
    head = (
        *("", "outputs that one NaN reaches", "inputs that overflow, of the largest float32"),
        *(f"error at inputs of {TINY:g}", f"error next to a pixel of {OUTLIER:g}"),
    )
    return table(head, rows)


def reached_by_nan(convolve: Method, x: Array, weight: Array, positions: range) -> int:
    """Return how many outputs of a filter are not finite after one NaN, wherever it is."""
    counts = []
    for i in positions:
        for j in positions:
            spoilt = x.copy()
            spoilt[0, 0, i, j] = np.nan
            counts.append(int((~np.isfinite(run(convolve, spoilt, weight)[0, 0])).sum()))
    return max(counts)


def overflow(convolve: Method, x: Array, weight: Array) -> str:
    """Return the first power of two, times the largest float32, whose results are not finite."""
    unit = x / np.abs(x).max()
    # No sum may overflow by itself, in whatever order.
    taps = weight / np.float32(2 * np.abs(weight).sum((1, 2, 3)).max())
    for power in range(-16, 1):
        scaled = unit * (np.finfo(np.float32).max * np.float32(2.0**power))
        if not np.isfinite(run(convolve, scaled, taps)).all():
            return f"1/{2**-power}"
    return "none"


def tiny(convolve: Method, x: Array, weight: Array) -> float:
    """Return the largest error where all inputs are denormal, over the largest output."""
    small = (x.astype(float) * TINY).astype(np.float32)
    return error(run(convolve, small, weight), exact(small, weight)).largest


def beside_outlier(convolve: Method, x: Array, weight: Array, positions: range) -> float:
    """Return the largest error of outputs that do not read the outlier, over their largest."""
    errors = []
    for i in positions:
        spoilt, beside = x.copy(), np.full(x.shape[2:], True)
        spoilt[0, 0, i, i] = OUTLIER
        beside[i - 1 : i + 2, i - 1 : i + 2] = False
        result, truth = run(convolve, spoilt, weight), exact(spoilt, weight)
        errors.append(error(result[..., beside], truth[..., beside]).largest)
    return max(errors)


def run(convolve: Method, x: Array, weight: Array) -> Array:
    """Convolve where it is known to be possible, whatever comes out."""
    with np.errstate(invalid="ignore", over="ignore"):
        result = convolve(x, weight)
    assert result is not None
    return result
